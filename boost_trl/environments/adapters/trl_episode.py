"""Rows and games for TRL's two ways to train in an environment: the rows to train on, and a game scored at its end."""

import json
from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from ..base import Environment, Task, as_task


def grpo_rows(
    env: Environment,
    tasks: Sequence[Task] | None = None,
    *,
    seed: int = 0,
    system_prompt: str | None = None,
) -> Dataset:
    """The dataset that `GRPOTrainer` trains on with [`as_environment_factory`] or [`as_rollout_func`]: a row per task.

    All generations of a group come from one row, so they play the same task with the same seed.

    Args:
        env (`Environment`): what is played.
        tasks (list of `Task`, *optional*): defaults to `env.tasks()`; pass the training categories' only.
        seed (`int`, *optional*, defaults to `0`): the game of row i is reset with `seed + i`.
        system_prompt (`str`, *optional*): instead of the environment's own, which describes actions as text.

    Returns:
        `datasets.Dataset` with `prompt` (the first observation is appended to its last message when a game starts; the
        key `game` of that message says which game, because a `rollout_func` sees nothing but prompts), `task_id`,
        `category`, `seed` and `task` (JSON).

    Raises:
        ValueError: if there are no tasks.
    """
    tasks = env.tasks() if tasks is None else tasks
    if not len(tasks):
        raise ValueError("grpo_rows needs at least one task; pass `env.tasks()` for all of them")
    rules = env.system_prompt if system_prompt is None else system_prompt
    opening = [{"role": "system", "content": rules, "game": None}] if rules else []
    rows = []
    for index, task in enumerate(tasks):
        # As text: tasks' fields differ, and a dataset's struct has the union of them.
        game = json.dumps({"task": task.to_dict(), "seed": seed + index})
        rows.append(
            {
                "prompt": [*opening, {"role": "user", "content": "", "game": game}],
                "task_id": task.id,
                "category": task.category,
                "seed": seed + index,
                "task": json.dumps(task.to_dict()),
            }
        )
    return Dataset.from_list(rows)


class Episode:
    """One game after the other in one environment, each scored once.

    A game that is not played to its end (the model stopped, or ran out of tokens) gets `unfinished_reward`, not the sum
    of what it was paid so far: with a cost per step, giving up at once would be the best policy.

    Args:
        env (`Environment`): what is played.
        reward (`str`, *optional*): the number in the last step's `info` that is the reward; `"discounted_score"` where
            there is one, else `"score"`.
        unfinished_reward (`float`, *optional*, defaults to `0.0`): of a game that was not played to its end.
    """

    def __init__(self, env: Environment, reward: str | None = None, unfinished_reward: float = 0.0):
        self.env = env
        self._reward_name = reward
        self._unfinished_reward = unfinished_reward
        self._last_info: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        return self._last_info is not None

    @property
    def reward(self) -> float:
        """The game's reward so far.

        Raises:
            ValueError: if the last `info` has no number of the name that was asked for.
        """
        if self._last_info is None:
            return self._unfinished_reward
        name = self._reward_name or ("discounted_score" if "discounted_score" in self._last_info else "score")
        if name not in self._last_info:
            raise ValueError(f"{self.env.name} ended a game without info[{name!r}]; it has {sorted(self._last_info)}")
        return float(self._last_info[name])

    def start(self, task: Task | str | dict[str, Any] | None, seed: int | None) -> str:
        """Begin a game: the first observation. A `task` may be a `Task`, its dict or JSON, its id, or none (drawn)."""
        if isinstance(task, str) and task.startswith("{"):
            task = json.loads(task)
        if isinstance(task, dict):
            task = as_task(task)
        self._last_info = None
        return self.env.reset(seed=seed, task=task)[0]

    def act(self, action: str) -> str:
        """The observation that answers `action`; `RuntimeError` from the environment if the game is over."""
        observation, _, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            self._last_info = info
        return observation
