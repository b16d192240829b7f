"""A guard: whether weights helped, by trusted rows that no training has seen."""

import numpy as np


def prefers_weights(weighted_losses: np.ndarray, uniform_losses: np.ndarray) -> bool:
    """Whether the weighted run's mean loss is below the other's by more than one standard error of the paired
    difference.

    Args:
        weighted_losses (array of `float`): (rows,) losses of trusted rows, kept out of all training, under the model that
            was trained with weights.
        uniform_losses (array of `float`): (rows,) losses of the same rows under the model that was trained without.

    Raises:
        ValueError: for different numbers of rows, fewer than two, or a loss that is NaN.
    """
    weighted, uniform = np.asarray(weighted_losses, float).ravel(), np.asarray(uniform_losses, float).ravel()
    if len(weighted) != len(uniform) or len(weighted) < 2:
        raise ValueError(
            f"the guard compares losses of the same rows, at least two, got {len(weighted)} and {len(uniform)} losses"
        )
    differences = weighted - uniform
    if np.isnan(differences).any():
        raise ValueError(f"a loss of row {int(np.isnan(differences).argmax())} is not a number")
    return bool(differences.mean() < -differences.std(ddof=1) / len(differences) ** 0.5)
