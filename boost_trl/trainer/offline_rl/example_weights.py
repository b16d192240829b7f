"""Weights of the training rows: as a table, and in a few numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset

from boost_trl.losses import effective_sample_size, weight_entropy


# Weights whose effective sample size falls below this share of the rows have collapsed.
COLLAPSE_SHARE = 0.01


def weight_table(
    dataset: Dataset, used: np.ndarray, scores: np.ndarray, weights: np.ndarray, first_words: list[str]
) -> Dataset:
    """The weight of every row of `dataset`, in its order.

    Args:
        dataset (`Dataset`): training rows as given.
        used (`np.ndarray` of shape `(N,)`): the rows that are trained on.
        scores, weights (`np.ndarray` of shape `(N,)`): of these rows; the weights sum to one.
        first_words (`list[str]`): of every row of `dataset`.

    Returns:
        `Dataset`: see `BilevelOfflineRLTrainer.example_weights`.
    """
    weights = weights * len(used)
    columns: dict[str, list] = {
        "index": list(range(len(dataset))),
        "weight": [0.0] * len(dataset),
        "score": [None] * len(dataset),
        "text": first_words,
    }
    for row, weight, score in zip(used, weights, scores):
        columns["weight"][row], columns["score"][row] = float(weight), float(score)
    for name in ("source", "category"):
        if name in dataset.column_names:
            columns[name] = list(dataset[name])
    return Dataset.from_dict(columns)


@torch.no_grad()
def weight_statistics(weights: np.ndarray, sources: Sequence[str | None] | None = None) -> dict[str, float]:
    """n_eff = 1/Σw̃², entropy, the largest weight (times N) and the mean weight (times N) by source.

    Args:
        weights (`np.ndarray` of shape `(N,)`): w̃, which sum to one.
        sources (sequence of N `str`, *optional*): where each row comes from.
    """
    weights = torch.from_numpy(weights)
    statistics = {
        "effective_sample_size": effective_sample_size(weights).item(),
        "weight_entropy": weight_entropy(weights).item(),
        "largest_weight": weights.max().item() * len(weights),
    }
    if sources is not None:
        sources = np.asarray(sources)
        for source in sorted({source for source in sources if source is not None}):
            mean = weights[torch.from_numpy(sources == source)].mean().item()
            statistics[f"weight_{source}"] = mean * len(weights)
    return statistics


def collapse_warning(statistics: dict[str, float], num_rows: int) -> str | None:
    """Warning for weights that leave almost no training data; `None` for others."""
    smallest = COLLAPSE_SHARE * num_rows
    if statistics.get("effective_sample_size", smallest) >= smallest:
        return None
    return (
        f"the weights have collapsed: their effective sample size is {statistics['effective_sample_size']:.1f} of "
        f"{num_rows} rows, so nearly all training data is ignored; lower `reweighting_learning_rate` "
        "or `reweighting_steps`, or use `method='validated'`"
    )
