"""A recorded dialogue's actions played again: which are invalid ([B] Table 5), and what it says that is not so."""

import math
from collections.abc import Mapping, Sequence
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
    _check(row)
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


def _check(row: Mapping[str, Any]) -> None:
    if row.get("task") is None or row.get("messages") is None:
        raise ValueError("the rows have no columns `messages` and `task`, from which to play them again")


def contradictions(env: Environment, row: Mapping[str, Any]) -> dict[int, str] | None:
    """Answers and rewards of the environment, by the number of the message that has others, when the row's actions are played
    again.

    Args:
        env ([`Environment`]): of the row.
        row (`Mapping`): with `messages`, `rewards` and `task`.

    Returns:
        `dict[int, str]`: empty where all is as the environment has it; `None` if the environment answers the same actions
        differently with another seed, so that nothing can be said.

    Raises:
        ValueError: as `play_again`.
    """
    _check(row)
    actions = [place for place, turn in enumerate(row["messages"]) if turn["role"] == "assistant"]
    played, other = (_answers(env, row, actions, seed) for seed in (0, 1))
    if played != other:
        return None
    found = {}
    for place, reward, (observation, paid) in zip(actions, row.get("rewards") or [None] * len(actions), played):
        if reward is not None and not math.isclose(reward, paid):
            found[place] = f"reward {paid:g}".replace("-", "−")
        answer = row["messages"][place + 1] if place + 1 < len(row["messages"]) else None
        if answer is not None and answer["role"] == "user" and answer["content"].strip() != observation.strip():
            found[place + 1] = observation
    return found


def _answers(env: Environment, row: Mapping[str, Any], actions: Sequence[int], seed: int) -> list[tuple[str, float]]:
    """Observation and reward after each action, up to the end of the game."""
    env.reset(task=as_task(row["task"]), seed=seed)
    answers = []
    for place in actions:
        observation, reward, terminated, truncated, _ = env.step(row["messages"][place]["content"])
        answers.append((observation, float(reward)))
        if terminated or truncated:
            break
    return answers
