"""OpenEnv environments, played in text through their clients."""

from collections.abc import Callable, Sequence
from typing import Any

from ..base import Task
from .adapted import AdaptedEnvironment, seeded_tasks, wait_for


class OpenEnvEnvironment(AdaptedEnvironment):
    """An OpenEnv environment as one of ours, see [`from_openenv`]."""

    def __init__(
        self,
        make_client: Callable[[], Any],
        to_action: Callable[[str], Any],
        to_text: Callable[[Any], str],
        *,
        name: str,
        max_steps: int,
        tasks: Sequence[Task] | int,
        system_prompt: str,
    ):
        self._to_action, self._to_text = to_action, to_text
        tasks = seeded_tasks(tasks, name)
        super().__init__(make_client, name=name, tasks=tasks, max_steps=max_steps, system_prompt=system_prompt)

    def _start(self, task: Task, seed: int | None) -> str:
        result = wait_for(self._inner.reset(**{"seed": seed, **task.data}))
        return self._to_text(result.observation)

    def _read(self, action: str) -> Any:
        return self._to_action(action)

    def _do(self, action: Any) -> tuple[str, float, bool, bool, dict[str, Any]]:
        result = wait_for(self._inner.step(action))
        return self._to_text(result.observation), float(result.reward or 0.0), bool(result.done), False, {}

    def _close(self) -> None:
        wait_for(self._inner.close())


def from_openenv(
    make_client: Callable[[], Any],
    to_action: Callable[[str], Any],
    to_text: Callable[[Any], str],
    *,
    name: str,
    max_steps: int,
    tasks: Sequence[Task] | int = 100,
    system_prompt: str = "",
) -> OpenEnvEnvironment:
    """Play an OpenEnv environment with [`rollout`] and [`evaluate_policy`].

    `score` is the sum of rewards (a reward of none is 0), `success` whether the episode was done with a positive sum.

    Args:
        make_client (`Callable[[], EnvClient]`): makes a client, asynchronous or synchronous; one session for each
            concurrent game.
        to_action (`Callable[[str], Action]`): text to the environment's action; a `ValueError`, pydantic's included,
            makes the turn a no-op.
        to_text (`Callable[[Observation], str]`): observation to text.
        name (`str`): of the environment.
        max_steps (`int`): actions after which an episode is cut.
        tasks (list of `Task` or `int`, *optional*, defaults to `100`): their `data` go to `reset` as keyword arguments,
            with the game's `seed` unless they have one; a number makes tasks with seeds 0, 1, 2, …
        system_prompt (`str`, *optional*, defaults to `""`): rules and action grammar.

    Example:

    ```python
    >>> env = from_openenv(
    ...     lambda: EchoEnv("http://localhost:8000"),
    ...     lambda text: EchoAction(message=text),
    ...     lambda observation: observation.echoed_message,
    ...     name="echo",
    ...     max_steps=5,
    ... )
    ```
    """
    return OpenEnvEnvironment(
        make_client, to_action, to_text, name=name, max_steps=max_steps, tasks=tasks, system_prompt=system_prompt
    )
