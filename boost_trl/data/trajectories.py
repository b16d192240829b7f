"""The trajectory format (one row, one episode) and its checks, all made before any training.

| column | type | meaning |
|---|---|---|
| `messages` | list of {role, content} | `assistant` turns are actions, `user`/`tool` turns observations, optional `system` first |
| `rewards` | list of float | one per assistant turn, received after it |
| `terminated` | bool, optional (true) | false: cut by a limit; such a row may end with `user`/`tool` turns |
| `category`, `source` | str, optional | the task's category; `offline` or `synthetic` |
| `task` | struct, optional | what the environment needs to replay the task |
| `tools`, `chat_template_kwargs` | optional | rendered by the chat template, as in TRL: JSON schemas (a list or its JSON text), a dict |

`prompt` + `completion` rows with a scalar `reward` are accepted as one-turn trajectories.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from datasets import Dataset

from boost_trl.data.template_arguments import template_columns


ROLES = ("system", "user", "assistant", "tool")
SOURCES = ("offline", "synthetic")
# Losses sum squared returns in float32, which ends at 3.4e38: room for returns of 10^3 such rewards in batches of 10^8 tokens.
REWARD_LIMIT = 1e12

Fail = Callable[[str, str], NoReturn]  # given a column and what is wrong with it


def to_trajectory(row: dict[str, Any], index: int, name: str = "dataset") -> dict[str, Any]:
    """One row in the trajectory format, checked.

    Args:
        row (`dict`): a trajectory row, or `prompt` + `completion` + `reward`.
        index (`int`): the row's number, for messages.
        name (`str`, *optional*, defaults to `"dataset"`): what the message calls the dataset.

    Returns:
        `dict` with `messages` (list), `rewards` (list of float, one per assistant turn), `terminated` (bool) and,
        where the row has them, `tools` (JSON text) and `chat_template_kwargs` (dict).

    Raises:
        ValueError: naming dataset, row and column, and saying what to do.
    """

    def refuse(column: str, problem: str) -> NoReturn:
        raise ValueError(f"{name}, row {index}, column `{column}`: {problem}")

    fail: Fail = refuse
    # A column that only other rows have is `None` here.
    if row.get("messages") is None:
        row, fail = _as_one_turn(row, fail)
    messages: Any = row["messages"]
    rewards: Any = row.get("rewards")
    _check_messages(messages, fail)
    if rewards is None:
        given = "" if row.get("reward") is None else " (the row has `reward`)"
        fail("rewards", f"is missing{given}; give a list with one number per assistant turn")
    _check_rewards(rewards, sum(message["role"] == "assistant" for message in messages), fail)
    terminated = True if row.get("terminated") is None else row["terminated"]
    if not isinstance(terminated, bool):
        fail("terminated", f"is {terminated!r}; it must be true or false")
    if terminated and messages[-1]["role"] != "assistant":
        fail(
            "messages", "ends with an observation although `terminated` is true; drop it, or set `terminated` to false"
        )
    source = row.get("source")
    if source is not None and source not in SOURCES:
        fail("source", f"is {source!r}; known sources: {', '.join(SOURCES)}")
    category = row.get("category")
    if isinstance(category, bool) or not isinstance(category, str | int | None):
        fail("category", f"is {category!r}; it must be text, the name of the task's category")
    return {
        "messages": list(messages),
        "rewards": [float(reward) for reward in rewards],
        "terminated": terminated,
        **template_columns(row, fail),
    }


def _as_one_turn(row: dict[str, Any], fail: Fail) -> tuple[dict[str, Any], Fail]:
    """A row of `prompt`, `completion` and `reward` with `messages` and `rewards` instead, and a `fail` that names the columns
    that the user gave."""
    columns = ("prompt", "completion", "reward")
    if not set(columns) <= row.keys() or all(row[column] is None for column in columns):
        fail("messages", "is missing; a row needs `messages` and `rewards`, or `prompt`, `completion` and `reward`")
    for column in ("prompt", "completion"):
        if not isinstance(row[column], Sequence):
            fail(column, f"is {row[column]!r}; it must be a text or a list of messages")
    prompt, completion = (
        [{"role": role, "content": row[column]}] if isinstance(row[column], str) else list(row[column])
        for role, column in (("user", "prompt"), ("assistant", "completion"))
    )
    if len(completion) != 1:
        fail("completion", f"has {len(completion)} messages; give episodes of several turns as `messages`")
    given = {"messages": "prompt/completion", "rewards": "reward"}

    def fail_as_given(column: str, problem: str) -> NoReturn:
        fail(given.get(column, column), problem)

    return {**row, "messages": prompt + completion, "rewards": [row["reward"]]}, fail_as_given


def _check_messages(messages: Any, fail: Fail) -> None:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        fail("messages", "must be a non-empty list of {role, content}")
    previous = None
    for turn, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            fail("messages", f"turn {turn} must be a dict with `role` and a string `content`")
        role = message.get("role")
        if role not in ROLES:
            fail("messages", f"turn {turn} has the role {role!r}; known roles: {', '.join(ROLES)}")
        if role == "system" and turn > 0:
            fail("messages", f"turn {turn} is a system turn; only the first may be")
        if role == "assistant" and previous == "assistant":
            fail("messages", f"turns {turn - 1} and {turn} are both the assistant's; join them into one action")
        previous = role
    if all(message["role"] != "assistant" for message in messages):
        fail("messages", "has no assistant turn, so there is no action to learn from; remove the row")


def _check_rewards(rewards: Any, num_actions: int, fail: Fail) -> None:
    if not isinstance(rewards, Sequence) or isinstance(rewards, str):
        fail("rewards", "must be a list with one number per assistant turn")
    if len(rewards) != num_actions:
        fail("rewards", f"has {len(rewards)} entries for {num_actions} assistant turns; give one per assistant turn")
    for turn, reward in enumerate(rewards):
        if isinstance(reward, bool) or not isinstance(reward, int | float) or not abs(reward) < REWARD_LIMIT:
            fail("rewards", f"entry {turn} is {reward!r}; rewards are finite numbers below {REWARD_LIMIT:g} in size")


def validate_trajectories(dataset: Dataset | Iterable[dict[str, Any]], name: str = "dataset") -> None:
    """Check every row of `dataset` (see the module's table).

    Raises:
        ValueError: at the first bad row, naming dataset, row and column; or if the dataset is empty.
    """
    rows = 0
    for index, row in enumerate(plain_rows(dataset)):
        to_trajectory(row, index, name)
        rows += 1
    if rows == 0:
        raise ValueError(f"{name} is empty: it has no trajectory to use")


def plain_rows(dataset: Dataset | Iterable[dict[str, Any]]) -> Dataset | Iterable[dict[str, Any]]:
    """`dataset` with rows of Python objects, whatever its format (`with_format("torch")`, …); a transform stays."""
    if isinstance(dataset, Dataset) and dataset.format["type"] not in (None, "custom"):
        return dataset.with_format(None)
    return dataset
