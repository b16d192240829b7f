"""Formats of the rows that are compared on: the trainer that they are for, and whether pool and trusted rows are alike."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from boost_trl.trainer.row_weights.row_checks import check_cells, columns_to_read


_BESIDE = ("tools", "chat_template_kwargs")
LABEL = "is_good"


def is_trajectories(columns: Sequence[str]) -> bool:
    """Whether rows of these columns are episodes with rewards, for offline RL, and not rows of SFT."""
    return "rewards" in columns or "reward" in columns


def check_same_kind(pool: Dataset, trusted: Dataset, pool_name: str, trusted_name: str) -> None:
    """Raises:
    ValueError: if only one of the two has rewards.
    """
    kinds = [is_trajectories(rows.column_names) for rows in (pool, trusted)]
    if kinds[0] != kinds[1]:
        names = (pool_name, trusted_name) if kinds[0] else (trusted_name, pool_name)
        raise ValueError(
            f"{names[0]} has rewards and {names[1]} has none: trajectories and rows of SFT cannot be compared; give both "
            "the same format"
        )


def sft_rows(
    pool: Dataset, trusted: Dataset, pool_name: str, trusted_name: str, text_field: str
) -> tuple[Dataset, Dataset]:
    """Pool and trusted rows with the columns that SFT reads, of the same types; the pool keeps a boolean `is_good`.

    Raises:
        ValueError: naming dataset, row and column of what cannot be read, or what differs between the two.
    """
    columns = columns_to_read(pool, pool_name, text_field)
    others = columns_to_read(trusted, trusted_name, text_field)
    if columns != others:
        raise ValueError(
            f"{pool_name} has the columns {columns} and {trusted_name} {others}; give both the same format, so that methods "
            "can train on them together"
        )
    for rows, name in ((pool, pool_name), (trusted, trusted_name)):
        check_cells(rows, name, columns)
    read = [*columns, *(name for name in _BESIDE if name in pool.column_names and name in trusted.column_names)]
    _check_answers(trusted, trusted_name, columns[-1])
    has_label = LABEL in pool.column_names and pool.features[LABEL].dtype == "bool"
    pool = pool.select_columns([*read, *([LABEL] if has_label else [])])
    return pool, _with_types_of(trusted.select_columns(read), pool, trusted_name, pool_name)


def _check_answers(rows: Dataset, name: str, column: str) -> None:
    """Raises:
    ValueError: naming the first row that says nothing, so that it can teach and judge nothing.
    """
    for number, value in enumerate(rows[column]):
        turns = [value] if isinstance(value, str) else [_answer(turn) for turn in value]
        if not any(turn.strip() if isinstance(turn, str) else turn for turn in turns):
            raise ValueError(f"{name}, row {number}, column `{column}`: has no answer; mend it, or leave the row out")


def _answer(turn: Mapping[str, Any]) -> Any:
    """Words or calls of the assistant in a turn; nothing in those of others."""
    if turn.get("role", turn.get("from")) in ("system", "developer", "user", "human", "tool"):
        return None
    return turn.get("content") or turn.get("value") or turn.get("tool_calls")


def _with_types_of(rows: Dataset, model: Dataset, name: str, model_name: str) -> Dataset:
    for column in rows.column_names:
        try:
            rows = rows.cast_column(column, model.features[column])
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                f"{name}, column `{column}`: has another type than in {model_name} ({rows.features[column]}, there "
                f"{model.features[column]}); give both the same format"
            ) from error
    return rows
