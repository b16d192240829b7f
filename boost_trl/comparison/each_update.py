"""A callback that moves a comparison's progress bar on."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback


class EachUpdate(TrainerCallback):
    """Calls a function after every update.

    Args:
        advance (`Callable`): called without arguments.
    """

    def __init__(self, advance: Callable[[], object]):
        self.advance = advance

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.advance()
