"""Analyses of learned weights and of the data that they weigh ([B] §6): pure functions of weights and embeddings."""

import numpy as np


def relative_weight_change(weights: np.ndarray) -> np.ndarray:
    """N·w̃_i − 1, the change from uniform weights ([B] Figure 2, top).

    Args:
        weights (`np.ndarray` of shape `(N,)`): weights of the whole training set, any positive scale.
    """
    weights = np.asarray(weights, dtype=np.float64)
    return weights * len(weights) / weights.sum() - 1


def distance_to_nearest(points: np.ndarray, reference: np.ndarray, k: int = 10) -> np.ndarray:
    """Mean L1 distance of every point to its `k` nearest reference points ([B] Figure 2, bottom: synthetic to offline).

    Args:
        points (`np.ndarray` of shape `(P, d)`): embeddings.
        reference (`np.ndarray` of shape `(R, d)`): embeddings.
        k (`int`, *optional*, defaults to `10`): neighbours; at most R are used.

    Raises:
        ValueError: if there is no reference point.
    """
    if len(reference) == 0:
        raise ValueError("there is no reference point to measure a distance to")
    k = min(k, len(reference))
    distances = np.empty(len(points))
    for row, point in enumerate(points):
        to_all = np.abs(reference - point).sum(axis=1)
        distances[row] = np.partition(to_all, k - 1)[:k].mean()
    return distances


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation, or `None` where one of them is constant."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])
