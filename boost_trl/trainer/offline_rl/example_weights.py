"""Weights of the training rows: as a table, and in a few numbers."""

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset

from boost_trl.data.trajectories import plain_rows, to_trajectory
from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.data.weight_units import WeightUnits
from boost_trl.losses import effective_sample_size, weight_entropy
from boost_trl.trainer.common.weight_files import KIND_COLUMNS


# Weights whose effective sample size falls below this share of the rows have collapsed.
COLLAPSE_SHARE = 0.01


def weight_table(
    dataset: Dataset,
    store: TrajectoryStore,
    scores: np.ndarray,
    weights: np.ndarray,
    first_words: list[str],
) -> Dataset:
    """The weight of every row of `dataset`, in its order.

    Args:
        dataset (`Dataset`): training rows as given.
        store (`TrajectoryStore`): the N rows that are trained on.
        scores, weights (`np.ndarray` of shape `(U,)`): of their units; the weights sum to one.
        first_words (`list[str]`): of every row of `dataset`.

    Returns:
        `Dataset`: see `BilevelOfflineRLTrainer.example_weights`.
    """
    units = store.units
    row_weights, row_scores = units.total_by_row(weights) * len(store), units.mean_by_row(scores)
    columns: dict[str, list] = {
        "index": list(range(len(dataset))),
        "weight": [0.0] * len(dataset),
        "score": [None] * len(dataset),
        "text": first_words,
        "return": [sum(to_trajectory(row, index)["rewards"]) for index, row in enumerate(plain_rows(dataset))],
    }
    for row, weight, score in zip(store.original_row, row_weights, row_scores):
        columns["weight"][row], columns["score"][row] = float(weight), float(score)
    if store.weight_level == "turn":
        columns["turn_weights"] = [[] for _ in range(len(dataset))]
        relative = np.split(weights / units.shares * len(store), np.cumsum(units.counts)[:-1])
        for row, of_turns in zip(store.original_row, relative):
            columns["turn_weights"][row] = of_turns.tolist()
    for name in KIND_COLUMNS:
        if name in dataset.column_names:
            columns[name] = list(dataset[name])
    return Dataset.from_dict(columns)


@torch.no_grad()
def weight_statistics(
    weights: np.ndarray, units: WeightUnits, sources: Sequence[str | None] | None = None
) -> dict[str, float]:
    """n_eff, entropy, the largest weight of a unit (times N, over its share) and the mean weight (times N) by source.

    Args:
        weights (`np.ndarray` of shape `(U,)`): w̃, which sum to one.
        units (`WeightUnits`): of N rows.
        sources (sequence of N `str`, *optional*): where each row comes from.
    """
    of_units, shares, num_rows = torch.from_numpy(weights), torch.from_numpy(units.shares), len(units.counts)
    statistics = {
        "effective_sample_size": effective_sample_size(of_units, shares).item(),
        "weight_entropy": weight_entropy(of_units, shares).item(),
        "largest_weight": (of_units / shares).max().item() * num_rows,
    }
    if sources is not None:
        sources, row_weights = np.asarray(sources), units.total_by_row(weights)
        for source in sorted({source for source in sources if source is not None}):
            statistics[f"weight_{source}"] = float(row_weights[sources == source].mean() * num_rows)
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
