"""Gymnasium environments, played in text."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..base import Task
from .adapted import AdaptedEnvironment, seeded_tasks


class GymnasiumEnvironment(AdaptedEnvironment):
    """A Gymnasium environment as one of ours, see [`from_gymnasium`]."""

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        actions: Sequence[str] | None,
        to_action: Callable[[str], Any] | None,
        to_text: Callable[[Any], str],
        tasks: Sequence[Task] | int,
        name: str | None,
        max_steps: int | None,
        system_prompt: str | None,
    ):
        inner = make()
        name = name or (inner.spec.id if inner.spec else type(inner.unwrapped).__name__)
        if max_steps is None and inner.spec:
            max_steps = inner.spec.max_episode_steps
        if max_steps is None:
            raise ValueError(f"{name} has no limit of steps of its own; pass max_steps")
        self._actions = list(actions) if actions is not None else None
        self._to_action = to_action or _reader(inner.action_space, actions, name)
        self._to_text = to_text
        if system_prompt is None:
            system_prompt = f"Answer with one of: {', '.join(actions)}." if actions is not None else ""
        tasks = seeded_tasks(tasks, name)
        super().__init__(make, name=name, tasks=tasks, max_steps=max_steps, system_prompt=system_prompt)

    def _start(self, task: Task, seed: int | None) -> str:
        observation, _ = self._inner.reset(seed=task.data.get("seed", seed), options=task.data.get("options"))
        return self._to_text(observation)

    def _read(self, action: str) -> Any:
        return self._to_action(action)

    def _do(self, action: Any) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self._inner.step(action)
        if "is_success" in info:
            info = {**info, "success": info["is_success"]}
        return self._to_text(observation), float(reward), bool(terminated), bool(truncated), info

    def _close(self) -> None:
        self._inner.close()

    def admissible_actions(self) -> list[str] | None:
        """The names of the actions, if there are."""
        return self._actions


def from_gymnasium(
    env: Any,
    *,
    actions: Sequence[str] | None = None,
    to_action: Callable[[str], Any] | None = None,
    to_text: Callable[[Any], str] = str,
    tasks: Sequence[Task] | int = 100,
    name: str | None = None,
    max_steps: int | None = None,
    system_prompt: str | None = None,
) -> GymnasiumEnvironment:
    """Play a Gymnasium environment with [`rollout`] and [`evaluate_policy`].

    `score` is the sum of rewards. `success` is the last info's `is_success` or `success`, else whether the episode
    terminated with a positive sum.

    Args:
        env (`str`, callable or `gymnasium.Env`): an id for `gymnasium.make`, a factory, or an environment (copied).
        actions (list of `str`, *optional*): names of the actions of a `Discrete` space, in its order.
        to_action (`Callable[[str], Any]`, *optional*): text to action, `ValueError` if it means none: a no-op. By
            default a `Discrete` space takes names or numbers, and a `Text` space the text as it is.
        to_text (`Callable[[Any], str]`, *optional*, defaults to `str`): observation to text.
        tasks (list of `Task` or `int`, *optional*, defaults to `100`): their `data` may have `seed` and `options`, which
            go to `reset` (without a `seed` there, each game has its own); a number makes tasks with seeds 0, 1, 2, …
        name (`str`, *optional*): defaults to the id.
        max_steps (`int`, *optional*): defaults to the environment's own limit.
        system_prompt (`str`, *optional*): rules; by default the names of the actions, if there are.

    Raises:
        ValueError: for an action space that needs `to_action`, `actions` that do not fit it, or no limit of steps.

    Example:

    ```python
    >>> env = from_gymnasium("FrozenLake-v1", actions=["left", "down", "right", "up"])
    >>> games = rollout(policy, env, env.tasks())
    ```
    """
    if isinstance(env, str):
        import gymnasium

        make = partial(gymnasium.make, env)
    else:
        make = env if callable(env) else partial(copy.deepcopy, env)
    return GymnasiumEnvironment(
        make,
        actions=actions,
        to_action=to_action,
        to_text=to_text,
        tasks=tasks,
        name=name,
        max_steps=max_steps,
        system_prompt=system_prompt,
    )


def _reader(space: Any, actions: Sequence[str] | None, name: str) -> Callable[[str], Any]:
    """A function from text to action, for a space of one of Gymnasium's two kinds that have an obvious one."""
    from gymnasium.spaces import Discrete, Text

    if isinstance(space, Text) and actions is None:
        return str
    if not isinstance(space, Discrete):
        raise ValueError(f"{name} has actions {space}; pass to_action, which makes one from a text")
    first, count = int(space.start), int(space.n)
    names = [str(first + index) for index in range(count)] if actions is None else [a.lower() for a in actions]
    if len(names) != count:
        raise ValueError(f"{name} has {count} actions, but `actions` names {len(names)}")
    numbers = {name: first + index for index, name in enumerate(names)}

    def read(text: str) -> int:
        if text.strip().lower() not in numbers:
            raise ValueError(f"answer with one of {', '.join(numbers)}")
        return numbers[text.strip().lower()]

    return read
