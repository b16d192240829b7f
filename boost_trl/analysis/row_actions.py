"""Validity of a recorded dialogue's actions ([B] Table 5)."""

from collections.abc import Mapping
from typing import Any

from boost_trl.environments.base import Environment, as_task


def play_again(env: Environment, row: Mapping[str, Any]) -> list[bool | None]:
    """Validity of each action, as the environment says when they are played again from the row's task.

    The environment answers truly, so that an action which only makes sense after an answer that a synthetic row made up is
    invalid, as is a product that no page has shown.

    Args:
        env ([`Environment`]): of the row.
        row (`Mapping`): with `messages` and `task`.

    Returns:
        `list`: one entry per assistant turn; `None` for those after the end of the game.

    Raises:
        ValueError: if the row has no task, or one that `env` does not know.
    """
    if row.get("task") is None or row.get("messages") is None:
        raise ValueError("the rows have no columns `messages` and `task`, from which to play them again")
    actions = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
    valid: list[bool | None] = []
    env.reset(task=as_task(row["task"]), seed=0)
    is_over = False
    for action in actions:
        if is_over:
            valid.append(None)
            continue
        _, _, terminated, truncated, info = env.step(action)
        valid.append(bool(info.get("valid", True)))
        is_over = terminated or truncated
    return valid
