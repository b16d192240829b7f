"""The training rows of which preparation leaves something to learn, and their numbers."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from boost_trl.trainer.sft_example_ids import EXAMPLE_ID, NO_EXAMPLE


def rows_to_learn(dataset: Dataset) -> np.ndarray:
    """
    The numbers of the rows with a token that is predicted, sorted: it has a label and is not the first that the model reads.

    Args:
        dataset ([`~datasets.Dataset`]): prepared rows, packed or not, with `labels` and row numbers.
    """
    is_packed = "seq_lengths" in dataset.column_names
    columns = ["labels", EXAMPLE_ID, *(["seq_lengths"] if is_packed else [])]
    found = [np.zeros(0, np.int64)]
    for table in dataset.with_format("arrow", columns=columns).iter(batch_size=1000):
        labels, lengths = _flat(table["labels"])
        ids = table[EXAMPLE_ID]
        ids = _flat(ids)[0] if pa.types.is_nested(ids.type) else np.repeat(ids.to_numpy(), lengths)
        is_predicted = labels != -100
        for spans in (lengths, _flat(table["seq_lengths"])[0] if is_packed else lengths):
            is_predicted[(np.cumsum(spans) - spans)[spans > 0]] = False
        found.append(np.unique(ids[is_predicted]))
    return np.unique(np.concatenate(found))


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Values of all lists, and the lists' lengths."""
    return pc.list_flatten(column).to_numpy(), pc.list_value_length(column).to_numpy()


def renumber(dataset: Dataset, rows: np.ndarray, num_proc: int | None = None) -> Dataset:
    """
    The prepared dataset with row `rows[i]` numbered i, without the others where each place holds one row. Tokens of the
    others in a packed sequence get -1.

    Args:
        dataset ([`~datasets.Dataset`]): prepared rows, packed or not, with row numbers.
        rows (`np.ndarray`): the numbers to keep, sorted.
        num_proc (`int`, *optional*): processes that share the work.
    """
    ids = dataset.with_format("arrow", columns=[EXAMPLE_ID])[:][EXAMPLE_ID]
    if not pa.types.is_nested(ids.type):
        dataset = dataset.select(np.flatnonzero(np.isin(ids.to_numpy(), rows)))
    return dataset.map(_renumber, batched=True, fn_kwargs={"rows": rows}, num_proc=num_proc, desc="Numbering rows")


def _renumber(batch: dict[str, list], rows: np.ndarray) -> dict[str, list]:
    ids = batch[EXAMPLE_ID]
    is_packed = np.ndim(ids[0]) > 0
    return {
        EXAMPLE_ID: [_places(np.asarray(row), rows) for row in ids] if is_packed else _places(np.asarray(ids), rows)
    }


def _places(ids: np.ndarray, rows: np.ndarray) -> np.ndarray:
    places = np.searchsorted(rows, ids).clip(max=len(rows) - 1)
    return np.where(rows[places] == ids, places, NO_EXAMPLE)
