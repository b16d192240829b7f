"""Checks that all rows of a dataset can be read, before any is prepared: text, messages or tokens."""

import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset, Json, Value
from trl import SFTConfig

from boost_trl.data.template_arguments import template_columns


# What a column may hold; any other is the text field.
_HELD = {
    **dict.fromkeys(("prompt", "completion", "chosen", "rejected"), ("text", "messages")),
    **dict.fromkeys(("messages", "conversations"), ("messages",)),
}
_NO_LABEL = -100


def check_rows(
    dataset: Dataset | IterableDataset,
    name: str,
    args: SFTConfig,
    formatting_func=None,
    left_out: np.ndarray | None = None,
) -> None:
    """The columns of any dataset whose columns are known, and every cell of one that can be read more than once.

    Args:
        dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): rows as the user gave them.
        name (`str`): what messages call it.
        args ([`~trl.SFTConfig`]): `dataset_text_field` and `dataset_kwargs` are read.
        formatting_func (`Callable`, *optional*): the trainer's; it decides which columns are read, so that nothing is
            checked.
        left_out (`np.ndarray`, *optional*): numbers of rows that are never read.

    Raises:
        ValueError: naming dataset, row and column.
    """
    columns = dataset.column_names
    if columns is None or (args.dataset_kwargs or {}).get("skip_prepare_dataset"):
        return
    if isinstance(dataset, Dataset) and dataset.format["type"] == "custom":
        return
    if "input_ids" in columns:
        if isinstance(dataset, Dataset):
            _check_tokens(dataset, name, left_out)
    elif isinstance(dataset, Dataset) and len(dataset) == 0:
        raise ValueError(f"`{name}` is empty; give it rows, or leave it out")
    elif formatting_func is None:
        read = columns_to_read(dataset, name, args.dataset_text_field)
        if isinstance(dataset, Dataset):
            check_cells(dataset, name, read, left_out)


def is_prepared(dataset: Dataset | IterableDataset, args: SFTConfig) -> bool:
    """Whether TRL takes the tokens as they are."""
    is_skipped = bool((args.dataset_kwargs or {}).get("skip_prepare_dataset"))
    return is_skipped or "input_ids" in (dataset.column_names or ())


def columns_to_read(dataset: Dataset | IterableDataset, name: str, text_field: str) -> list[str]:
    """Those that TRL reads, in its order of preference.

    Raises:
        ValueError: if there are none.
    """
    columns, features = dataset.column_names, dataset.features or {}
    if "prompt" in columns:
        if "completion" not in columns:
            raise ValueError(
                f"`{name}` has a column 'prompt' and no 'completion', only {sorted(columns)}; add the answers as "
                "'completion', or rename 'prompt'"
            )
        return ["prompt", "completion"]
    for column in ("messages", "conversations"):
        # Beside text, a column of this name that holds no list is not read.
        if column in columns and not (text_field in columns and isinstance(features.get(column), Value)):
            return [column]
    if text_field in columns:
        return [text_field]
    raise ValueError(
        f"`{name}` has none of the columns to train on, only {sorted(columns)}; it needs '{text_field}' "
        "(`dataset_text_field`), 'prompt' and 'completion', 'messages', or 'input_ids'"
    )


def check_cells(dataset: Dataset, name: str, columns: Sequence[str], left_out: np.ndarray | None = None) -> None:
    """Each cell of `columns` has to hold text, or messages that all have a role and content; one kind in all of them.

    Raises:
        ValueError: naming dataset, row and column.
    """
    kinds = {column: _kind(dataset, name, column) for column in columns}
    if len(set(kinds.values())) > 1:
        held = ", ".join(f"'{column}' {kind}" for column, kind in kinds.items())
        raise ValueError(f"`{name}` mixes text and messages: {held}; give all of them as one of the two")
    for column, kind in kinds.items():
        is_json = any(isinstance(f, Json) for f in (dataset.features[column], _item(dataset.features[column])))
        problems = _decoded_problems(dataset, column, kind) if is_json else _problems(dataset, column, kind)
        _raise_first(problems, name, column, left_out)
    for column in {"tools", "chat_template_kwargs"}.intersection(dataset.column_names):
        _raise_first(_argument_problems(dataset, column), name, column, left_out)


def _raise_first(problems: Iterator[tuple[str, np.ndarray]], name: str, column: str, left_out) -> None:
    for problem, rows in problems:
        rows = rows if left_out is None else np.setdiff1d(rows, left_out)
        if len(rows):
            raise ValueError(f"`{name}`, row {rows[0]}, column '{column}': {problem}; mend it, or leave the row out")


def _kind(dataset: Dataset, name: str, column: str) -> str:
    """`"text"` or `"messages"`; where the cells do not all hold one type, what most of them hold."""
    feature, allowed = dataset.features[column], _HELD.get(column, ("text",))
    kind, fields = None, _item(feature)
    if isinstance(feature, Value):
        if feature.dtype == "null":
            raise ValueError(f"`{name}`, row 0, column '{column}': is None, as in all rows; fill it in")
        kind = "text" if feature.dtype in ("string", "large_string", "string_view") else None
    elif isinstance(fields, dict | Json):
        kind = "messages"
    elif isinstance(feature, Json):
        lists = sum(isinstance(cell, list) for cell in _cells(dataset, column))
        kind = "messages" if 2 * lists > len(dataset) else "text"
        kind = kind if kind in allowed else allowed[0]
    if kind not in allowed:
        raise ValueError(
            f"`{name}`, column '{column}': holds {_described(feature)}; it must hold {' or '.join(allowed)}"
        )
    if isinstance(fields, dict) and not set(_message_fields(column)) <= fields.keys():
        needed = " and ".join(f"'{field}'" for field in _message_fields(column))
        raise ValueError(f"`{name}`, column '{column}': its messages have {sorted(fields)}; they must have {needed}")
    return kind


def _described(feature) -> str:
    if isinstance(feature, Value):
        return feature.dtype
    item = f" of {_item(feature).dtype}" if isinstance(_item(feature), Value) else ""
    return type(feature).__name__.lower() + item


def _item(feature):
    return getattr(feature, "feature", None)


def _message_fields(column: str) -> tuple[str, str]:
    return ("from", "value") if column == "conversations" else ("role", "content")


def _cells(dataset: Dataset, column: str):
    return dataset.select_columns([column]).with_format(None)[column]


def _chunks(dataset: Dataset, columns: Sequence[str]) -> Iterator[tuple[int, list[pa.Array]]]:
    """The number of the first row of each chunk, and its columns."""
    first = 0
    for table in dataset.select_columns(list(columns)).with_format("arrow").iter(batch_size=1000):
        yield first, [table[column].combine_chunks() for column in columns]
        first += len(table)


def _problems(dataset: Dataset, column: str, kind: str) -> Iterator[tuple[str, np.ndarray]]:
    """(what is wrong, numbers of the rows), where all cells hold one type."""
    for first, (cells,) in _chunks(dataset, [column]):
        yield "is None", first + np.flatnonzero(cells.is_null())
        if kind == "text":
            continue
        yield "has no message", first + np.flatnonzero(pc.fill_null(pc.equal(pc.list_value_length(cells), 0), False))
        messages, rows = pc.list_flatten(cells), first + pc.list_parent_indices(cells).to_numpy()
        fields = {field.name: pc.struct_field(messages, field.name) for field in messages.type}
        role, content = _message_fields(column)
        # A message without content is one if it has something else, such as `tool_calls`.
        others = [_is_nothing(values) for name, values in fields.items() if name != role]
        yield f"has a message without '{content}'", rows[np.logical_and.reduce(others)]
        yield f"has a message without '{role}'", rows[np.asarray(fields[role].is_null())]


def _is_nothing(values: pa.Array) -> np.ndarray:
    is_nothing = values.is_null()
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        is_nothing = pc.fill_null(pc.equal(pc.list_value_length(values), 0), True)
    return np.asarray(is_nothing)


def _decoded_problems(dataset: Dataset, column: str, kind: str) -> Iterator[tuple[str, np.ndarray]]:
    """The same, where each cell or each message has a type of its own."""
    for row, cell in enumerate(_cells(dataset, column)):
        problem = _problem(cell, kind, *_message_fields(column))
        if problem is not None:
            yield problem, np.array([row])


def _problem(cell: Any, kind: str, role: str, content: str) -> str | None:
    if cell is None:
        return "is None"
    if not isinstance(cell, str if kind == "text" else list):
        return f"holds {type(cell).__name__}; it must hold {kind}, as other rows do"
    if kind == "text":
        return None
    if not cell:
        return "has no message"
    for message in cell:
        if not isinstance(message, dict):
            return f"has a message that is {type(message).__name__}; it must be a dict with '{role}' and '{content}'"
        if all(value in (None, []) for field, value in message.items() if field != role):
            return f"has a message without '{content}'"
        if message.get(role) is None:
            return f"has a message without '{role}'"
    return None


def _argument_problems(dataset: Dataset, column: str) -> Iterator[tuple[str, np.ndarray]]:
    """The same of arguments of the chat template."""

    def fail(column: str, problem: str):
        raise ValueError(problem)

    for row, cell in enumerate(_cells(dataset, column)):
        if column == "tools":
            try:
                template_columns({column: cell}, fail)
            except ValueError as error:
                yield str(error), np.array([row])
        elif not isinstance(cell, dict):
            yield f"is {cell!r}; it must be a dict of names and values", np.array([row])


def _check_tokens(dataset: Dataset, name: str, left_out: np.ndarray | None) -> None:
    """Raises:
    ValueError: naming dataset, row and column, for what cannot be token ids, labels or masks of one length.
    """
    columns = [
        "input_ids",
        *(c for c in ("labels", "completion_mask", "assistant_masks") if c in dataset.column_names),
    ]
    for column in columns:
        held = getattr(_item(dataset.features[column]), "dtype", None)
        if held is None or not held.startswith(("int", "uint", "bool")):
            _raise_first(_not_whole(dataset, column), name, column, left_out)
            raise ValueError(
                f"`{name}`, column '{column}': holds {_described(dataset.features[column])}; it must hold lists of whole numbers"
            )
    for first, cells in _chunks(dataset, columns):
        lengths = pc.list_value_length(cells[0])
        for column, values in zip(columns, cells):
            _raise_first(_token_problems(column, values, lengths, first), name, column, left_out)


def _not_whole(dataset: Dataset, column: str) -> Iterator[tuple[str, np.ndarray]]:
    """The same of a column that does not hold lists of whole numbers: one cell of another type changes the type of all."""
    for row, cell in enumerate(_cells(dataset, column)):
        if not isinstance(cell, list) or not all(_is_whole(entry) for entry in cell):
            yield f"is {reprlib.repr(cell)}; it must be a list of whole numbers", np.array([row])


def _is_whole(entry: Any) -> bool:
    return isinstance(entry, int) or (isinstance(entry, float) and entry.is_integer())


def _token_problems(column: str, cells: pa.Array, lengths: pa.Array, first: int) -> Iterator[tuple[str, np.ndarray]]:
    yield "is None", first + np.flatnonzero(cells.is_null())
    differs = pc.fill_null(pc.not_equal(pc.list_value_length(cells), lengths), False)
    yield "has another length than 'input_ids'", first + np.flatnonzero(differs)
    entries, rows = pc.list_flatten(cells), first + pc.list_parent_indices(cells).to_numpy()
    yield "has an entry that is None", rows[np.asarray(entries.is_null())]
    if not pa.types.is_boolean(entries.type):
        entries = entries.to_numpy(zero_copy_only=False)
        yield "has a negative entry", rows[(entries < 0) & ~((column == "labels") & (entries == _NO_LABEL))]
