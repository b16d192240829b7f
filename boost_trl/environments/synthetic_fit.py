"""Checks that rows are of an environment's games, made before its rules judge what a model makes of them."""

import json
from typing import Any

from datasets import Dataset

from boost_trl.data.trajectories import to_trajectory

from .base import Environment
from .rollout import as_task
from .synthetic import rules_of


def check_rows_fit(env: Environment, dataset: Dataset, name: str) -> None:
    """A row fits if the environment plays its task or has tasks of its category, and its rules can read the row's text.

    Args:
        env (`Environment`): offers rules for synthetic self-play.
        dataset (`Dataset`): rows in the trajectory format.
        name (`str`): what the message calls them.

    Raises:
        ValueError: at the first row that does not fit, naming dataset, row and column; as `rules_of`.
    """
    rules = rules_of(env)
    categories = {task.category for task in env.tasks()}
    plays: dict[str, str | None] = {}
    for index, row in enumerate(dataset):
        task = row.get("task")
        if row.get("category") not in categories:
            column = "category" if task is None else "task"
            problem = "it has none" if task is None else _played_once(plays, env, task)
            if problem is not None:
                raise ValueError(
                    f"{name}, row {index}, column `{column}`: this is no game of {env.name!r}, by whose rules the "
                    f"continued text would be judged ({problem}); name the environment and the options that the rows were "
                    "made with, or keep their columns `task` and `category`"
                )
        task = None if task is None else as_task({"category": row.get("category") or "", **task})
        try:
            rules.rewards_from_text(to_trajectory(row, index, name)["messages"], task)
        except Exception as error:  # rules of others raise what they like at a text that is not theirs
            raise ValueError(
                f"{name}, row {index}, column `messages`: the rules of {env.name!r} cannot read it: {error}"
            ) from error


def _played_once(plays: dict[str, str | None], env: Environment, task: dict[str, Any]) -> str | None:
    """The reason that `env` does not play `task`, or `None`; asked once for each task."""
    key = json.dumps(task, sort_keys=True, default=str)
    if key not in plays:
        try:
            env.reset(task=as_task({"category": "", **task}))
            plays[key] = None
        except Exception as error:  # as above
            plays[key] = str(error)
    return plays[key]
