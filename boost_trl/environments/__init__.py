"""Games in text: the contract, what plays them, synthetic self-play, three worlds and adapters to other libraries."""

from .base import Environment, Task, make_env


__all__ = ["Environment", "Task", "make_env"]
