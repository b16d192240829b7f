"""Rows that supervised fine-tuning cannot read, named by dataset, row and column before anything is prepared."""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset, Value
from trl import SFTConfig


_MESSAGE_FIELDS = (("role", "content"), ("from", "value"))


def check_rows(
    dataset: Dataset | IterableDataset,
    name: str,
    args: SFTConfig,
    formatting_func: Callable | None = None,
    left_out: np.ndarray | None = None,
) -> None:
    """
    The columns of any dataset whose columns are known, and every cell of one that can be read more than once.

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
    if columns is None or is_prepared(dataset, args) or formatting_func is not None:
        return
    if isinstance(dataset, Dataset) and dataset.format["type"] == "custom":
        return
    read = _columns_to_read(columns, name, args.dataset_text_field)
    if isinstance(dataset, Dataset):
        check_cells(dataset, name, read, left_out)


def is_prepared(dataset: Dataset | IterableDataset, args: SFTConfig) -> bool:
    """Whether TRL takes the tokens as they are."""
    is_skipped = bool((args.dataset_kwargs or {}).get("skip_prepare_dataset"))
    return is_skipped or "input_ids" in (dataset.column_names or ())


def check_cells(dataset: Dataset, name: str, columns: Sequence[str], left_out: np.ndarray | None = None) -> None:
    """
    Each cell of `columns` has to hold text, or messages that all have content; one kind in all of them.

    Raises:
        ValueError: naming dataset, row and column.
    """
    kinds = {column: _kind(dataset, name, column) for column in columns}
    if len(set(kinds.values())) > 1:
        held = ", ".join(f"'{column}' {kind}" for column, kind in kinds.items())
        raise ValueError(f"`{name}` mixes text and messages: {held}. Give all of them as one of the two.")
    for column, kind in kinds.items():
        first = 0
        for table in dataset.select_columns([column]).with_format("arrow").iter(batch_size=1000):
            cells = table[column].combine_chunks()
            for problem, rows in _problems(cells, kind):
                rows = first + rows.to_numpy(zero_copy_only=False)
                if left_out is not None:
                    rows = np.setdiff1d(rows, left_out)
                if len(rows):
                    raise ValueError(
                        f"`{name}`, row {rows[0]}, column '{column}': {problem}. Fill it in, or leave the row out."
                    )
            first += len(cells)


def _columns_to_read(columns: Sequence[str], name: str, text_field: str) -> list[str]:
    """Those that TRL reads, in its order of preference."""
    if "prompt" in columns:
        if "completion" not in columns:
            raise ValueError(
                f"`{name}` has a column 'prompt' and no 'completion', only {sorted(columns)}. Add the answers as "
                "'completion', or rename 'prompt'."
            )
        return ["prompt", "completion"]
    for column in ("messages", "conversations", text_field):
        if column in columns:
            return [column]
    raise ValueError(
        f"`{name}` has none of the columns to train on, only {sorted(columns)}. It needs '{text_field}' "
        "(`dataset_text_field`), 'prompt' and 'completion', 'messages', or 'input_ids'."
    )


def _kind(dataset: Dataset, name: str, column: str) -> str:
    feature = dataset.features[column]
    if isinstance(feature, Value):
        if feature.dtype == "null":
            raise ValueError(f"`{name}`, row 0, column '{column}': is None, as in all rows. Fill it in.")
        if feature.dtype not in ("string", "large_string"):
            raise ValueError(f"`{name}`, column '{column}': holds {feature.dtype}; it must hold text or messages.")
        return "text"
    message = getattr(feature, "feature", None)
    fields = set(message) if isinstance(message, dict) else None
    if fields is not None and not any(set(pair) <= fields for pair in _MESSAGE_FIELDS):
        raise ValueError(
            f"`{name}`, column '{column}': its messages have {sorted(fields)}; they must have 'role' and 'content'."
        )
    return "messages"


def _problems(cells: pa.Array, kind: str):
    """(what is wrong, numbers of the rows) over a chunk of one column."""
    yield "is None", pc.indices_nonzero(pc.is_null(cells))
    if kind == "text" or not (pa.types.is_list(cells.type) or pa.types.is_large_list(cells.type)):
        return
    yield "has no message", pc.indices_nonzero(pc.fill_null(pc.equal(pc.list_value_length(cells), 0), False))
    messages, rows = pc.list_flatten(cells), pc.list_parent_indices(cells)
    if not pa.types.is_struct(messages.type):
        return
    fields = {field.name: pc.struct_field(messages, field.name) for field in messages.type}
    content = next(pair[1] for pair in _MESSAGE_FIELDS if set(pair) <= fields.keys())
    # A message without content is one if it has something else, such as `tool_calls`.
    is_empty = pc.is_null(messages)
    says_nothing = [_is_nothing(values) for name, values in fields.items() if name not in ("role", "from")]
    for values in says_nothing[1:]:
        says_nothing[0] = pc.and_(says_nothing[0], values)
    is_empty = pc.or_(is_empty, says_nothing[0])
    yield f"has a message without '{content}'", pc.unique(rows.filter(is_empty))


def _is_nothing(values: pa.Array) -> pa.Array:
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return pc.fill_null(pc.equal(pc.list_value_length(values), 0), True)
    return pc.is_null(values)
