"""The rows of largest weight, for another run."""

import numpy as np
from datasets import Dataset


DEFAULT_WEIGHT_COLUMN = "weight"  # what `example_weights` and `export_selected` call it


def select_top_rows(
    dataset: Dataset, weights: list[float], top_fraction: float, column: str = DEFAULT_WEIGHT_COLUMN
) -> Dataset:
    """
    The share `top_fraction` of rows with the largest weights, in their order, with their weights in `column`, of mean
    one.

    Raises:
        ValueError: for another number of rows than weights, a `top_fraction` outside of (0, 1], or one that would have
            to choose among rows of equal weight only.
        TypeError: if `dataset` is not a [`~datasets.Dataset`].
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"`dataset` must be a `Dataset`, got `{type(dataset).__name__}`. A stream can be read into one with "
            "`Dataset.from_list(list(stream))`."
        )
    if not 0 < top_fraction <= 1:
        raise ValueError(f"`top_fraction` must be in (0, 1], got {top_fraction}.")
    if len(dataset) != len(weights):
        raise ValueError(f"`dataset` has {len(dataset)} rows, but the weights belong to {len(weights)}.")
    weights = np.array(weights, dtype=np.float32)
    positive = weights[weights > 0]
    order = np.argsort(-weights, kind="stable")[: max(1, round(top_fraction * len(weights)))]
    kept = np.sort(order[weights[order] > 0])
    if len(kept) < len(positive) and (positive == positive[0]).all():
        raise ValueError(
            f"All weights are equal, so nothing says which {len(kept)} of {len(positive)} rows to keep: nothing has been "
            "learned yet, or the selector learns no weights ('mixing', 'uniform'). Train first, with one that does, or "
            "keep all rows with `top_fraction=1`."
        )
    if column in dataset.column_names:
        dataset = dataset.remove_columns(column)
    return dataset.select(kept).add_column(column, weights[kept] / weights[kept].mean())
