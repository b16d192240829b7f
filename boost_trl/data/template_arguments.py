"""Arguments of the chat template that a row passes beside its messages: the columns `tools` and
`chat_template_kwargs`, as in TRL."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase


COLUMNS = ("tools", "chat_template_kwargs")
# Arguments of `apply_chat_template` that say what it returns.
_NOT_THE_TEMPLATES = {
    *(
        "tokenize",
        "padding",
        "truncation",
        "max_length",
        "return_tensors",
        "return_dict",
        "return_assistant_tokens_mask",
    ),
    *("add_generation_prompt", "continue_final_message", "tokenizer_kwargs", "conversation"),
}


def template_columns(row: dict[str, Any], fail: Callable[[str, str], None]) -> dict[str, Any]:
    """The two columns of a row, checked; those that it does not have are left out.

    Args:
        row (`dict`): with or without `tools` (a list of JSON schemas, or its JSON text) and `chat_template_kwargs` (a dict).
        fail (`Callable`): raises, given a column and what is wrong with it.

    Returns:
        `dict` with `tools` as JSON text, which tables of rows hold whatever the schemas are, and `chat_template_kwargs`.
    """
    tools, arguments = row.get("tools"), row.get("chat_template_kwargs")
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except json.JSONDecodeError as error:
            fail("tools", f"is no JSON: {error}")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        fail("tools", f"is {tools!r}; it must be a list of tools, each a JSON schema, or such a list as JSON text")
    if not isinstance(arguments, dict | None):
        fail("chat_template_kwargs", f"is {arguments!r}; it must be a dict of names and values")
    for name in arguments or {}:
        if name in _NOT_THE_TEMPLATES:
            fail("chat_template_kwargs", f"sets {name!r}, which is not the template's; remove it")
    columns = {"tools": None if tools is None else json.dumps(tools), "chat_template_kwargs": arguments}
    return {name: value for name, value in columns.items() if value is not None}


def template_arguments(row: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `apply_chat_template` for a checked row (`to_trajectory`); empty where it passes none."""
    tools = {"tools": json.loads(row["tools"])} if "tools" in row else {}
    return tools | row.get("chat_template_kwargs", {})


def render_rows(tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]]) -> list[tuple[list, list]]:
    """Token ids and assistant mask of each checked row; rows that pass the template the same are rendered together."""
    alike = defaultdict(list)
    for index, row in enumerate(rows):
        alike[json.dumps(template_arguments(row), sort_keys=True, default=str)].append(index)
    rendered: list = [None] * len(rows)
    for indices in alike.values():
        together = tokenizer.apply_chat_template(
            [rows[index]["messages"] for index in indices],
            return_dict=True,
            return_assistant_tokens_mask=True,
            **template_arguments(rows[indices[0]]),
        )
        for index, ids, mask in zip(indices, together["input_ids"], together["assistant_masks"]):
            rendered[index] = ids, mask
    return rendered


def unread_arguments(tokenizer: PreTrainedTokenizerBase, arguments: dict[str, Any]) -> set[str]:
    """Names that do not occur in the chat template, which therefore ignores them."""
    template = tokenizer.get_chat_template(arguments.get("chat_template"), tools=arguments.get("tools"))
    return {name for name in arguments if name != "chat_template" and name not in template}


def shared_template_arguments(dataset: Dataset) -> dict[str, Any] | None:
    """Template arguments that all rows of a checked dataset share, `None` where they differ. A policy that was trained
    on the rows plays games rendered with the same arguments."""
    columns = [column for column in COLUMNS if column in dataset.column_names]
    if not columns:
        return {}
    rows = dataset.select_columns(columns).with_format(None)
    everyone = [template_arguments(template_columns(row, _was_checked)) for row in rows]
    return everyone[0] if all(arguments == everyone[0] for arguments in everyone) else None


def _was_checked(column: str, problem: str) -> None:
    raise ValueError(f"column `{column}` {problem}")
