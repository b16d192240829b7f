"""Checks that rows are of an environment's games, made before its rules judge what a model makes of them."""

import json
from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from boost_trl.data.trajectories import to_trajectory

from .base import Environment, Task, as_task
from .synthetic_rules import KnowsItsText, SyntheticRules, rules_of


def check_rows_fit(env: Environment, dataset: Dataset, name: str) -> None:
    """A row fits if the environment plays its task or has tasks of its category (as for LMRL-Gym's rows, whose tasks are
    words), and if its rules take the row's text for a game of theirs.

    Args:
        env (`Environment`): offers rules for synthetic self-play.
        dataset (`Dataset`): rows in the trajectory format.
        name (`str`): what the message calls them.

    Raises:
        ValueError: at the first row that does not fit, naming dataset, row and column; as `rules_of`.
    """
    rules = rules_of(env)
    categories = {task.category for task in env.tasks()}
    misfits: dict[str, str | None] = {}
    for index, row in enumerate(dataset):
        # Rows share tasks, and to play one can take long.
        key = json.dumps([row.get("category"), row.get("task")], sort_keys=True, default=str)
        if key not in misfits:
            misfits[key] = _task_misfit(env, categories, row, task_of_row(row, index, name))
        if misfits[key] is not None:
            column = "category" if row.get("task") is None else "task"
            raise ValueError(
                f"{name}, row {index}, column `{column}`: this is no game of {env.name!r}, by whose rules the continued "
                f"text would be judged ({misfits[key]}); name the environment and the options that the rows were made "
                "with, or keep their columns `task` and `category`"
            )
        problem = _text_misfit(rules, to_trajectory(row, index, name)["messages"], task_of_row(row, index, name))
        if problem is not None:
            raise ValueError(
                f"{name}, row {index}, column `messages`: the rules of {env.name!r} cannot read it: {problem}"
            )


def task_of_row(row: dict[str, Any], index: int, name: str) -> Task | None:
    """The task in a row's column `task`, which may leave its category to the row's.

    Raises:
        ValueError: if it is no task, naming dataset, row and column.
    """
    task = row.get("task")
    if task is None:
        return None
    if isinstance(task, Mapping):
        task = {**task, "category": task.get("category") or row.get("category") or ""}
    try:
        return as_task(task)
    except ValueError as error:
        raise ValueError(f"{name}, row {index}, column `task`: {error}") from error


def _task_misfit(env: Environment, categories: set[str], row: dict[str, Any], task: Task | None) -> str | None:
    """Evidence that a row's category and task are another game's, or `None`."""
    category = row.get("category")
    if category in categories and (task is None or task.category == category):
        return None
    if task is None:
        return f"it has no category {category!r}" if category else "it has none"
    try:
        env.reset(task=task)
    except Exception as error:  # environments of others raise what they like at a task that is not theirs
        return str(error)
    return None


def _text_misfit(rules: SyntheticRules, messages: list[dict[str, Any]], task: Task | None) -> str | None:
    """Evidence that the rules cannot judge the text, or `None`."""
    try:
        if isinstance(rules, KnowsItsText):
            rules.check_text(messages)
        rules.rewards_from_text(messages, task)
    except Exception as error:  # as above
        return str(error)
    return None
