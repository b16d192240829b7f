"""Rows of a prepared dataset that have nothing to learn, or nothing to answer, found without going through them one by one."""

from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset


def rows_without_prediction(dataset: Dataset) -> np.ndarray:
    """Places of the rows without a label that a model predicts: the first token of a row is never predicted."""
    return _rows_without(dataset, lambda is_label, is_first: is_label & ~is_first)


def rows_without_question(dataset: Dataset) -> np.ndarray:
    """Places of the rows in which no answer follows a token that is not learned."""
    return _rows_without(dataset, lambda is_label, is_first: is_label & ~is_first & ~np.roll(is_label, 1))


def _rows_without(dataset: Dataset, sought) -> np.ndarray:
    """Places of the rows in which `sought(is_label, is_first_of_row)` holds for no token."""
    places, first = [np.zeros(0, np.int64)], 0
    for lengths, labels in _labels(dataset):
        ends = np.cumsum(lengths)
        starts = ends - lengths
        is_first = np.zeros(len(labels), dtype=bool)
        is_first[starts[lengths > 0]] = True
        found = np.concatenate([[0], np.cumsum(sought(labels != -100, is_first))])
        places.append(first + np.flatnonzero(found[ends] == found[starts]))
        first += len(lengths)
    return np.concatenate(places)


def _labels(dataset: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(B,) numbers of tokens and (ΣT,) labels of the next 1000 rows."""
    for table in dataset.with_format("arrow", columns=["labels"]).iter(batch_size=1000):
        yield pc.list_value_length(table["labels"]).to_numpy(), pc.list_flatten(table["labels"]).to_numpy()
