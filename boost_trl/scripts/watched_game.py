"""A game that is shown while it is played."""

import time
from typing import Any

from boost_trl.environments.base import Environment, Task


class WatchedGame:
    """An [`~boost_trl.environments.Environment`] that prints what is said in it as soon as it is said.

    Args:
        env (`Environment`): what is played.
        pause (`float`, *optional*, defaults to `0.0`): seconds before each action, where a model is faster than a reader.
    """

    def __init__(self, env: Environment, pause: float = 0.0):
        self.env, self.pause = env, pause
        self.name, self.system_prompt, self.max_steps = env.name, env.system_prompt, env.max_steps

    def tasks(self, *args: Any, **kwargs: Any) -> Any:
        return self.env.tasks(*args, **kwargs)

    def reset(self, *, seed: int | None = None, task: Task | str | None = None) -> tuple[str, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, task=task)
        if isinstance(task, Task):
            print(f"\n{task.id} ({task.category})")
        if self.system_prompt:
            print_message("system", self.system_prompt)
        print_message("user", observation)
        return observation, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        time.sleep(self.pause)
        print_message("assistant", action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        print_message("user", observation)
        if terminated or truncated:
            print(f"  {'success' if info.get('success') else 'no success'}", flush=True)
        return observation, reward, terminated, truncated, info

    def admissible_actions(self) -> list[str] | None:
        return self.env.admissible_actions()

    def close(self) -> None:
        self.env.close()


def print_message(role: str, content: str) -> None:
    """One turn of a game, on a line of the terminal."""
    print(f"  {role:>9}: {content}", flush=True)
