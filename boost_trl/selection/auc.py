"""AUC of weights: their separation of known good rows from known bad ones."""

import numpy as np

from boost_trl.selection.rules import fractional_ranks


def weights_auc(weights, labels) -> float | None:
    """Probability that a row labelled true has a larger weight than one labelled false, ties counting half: the area
    under the ROC curve.

    Args:
        weights (array of `float`): (N,).
        labels (array of `bool`): (N,), true for the rows that should be kept.

    Returns:
        `float` or `None`: `None` where nothing is ranked: the weights are constant, or the labels are.

    Raises:
        ValueError: if the lengths differ or a weight is NaN.
    """
    weights, labels = np.asarray(weights).ravel(), np.asarray(labels).ravel().astype(bool)
    if len(weights) != len(labels):
        raise ValueError(f"`weights` has {len(weights)} rows but `labels` has {len(labels)}")
    if np.isnan(weights).any():
        raise ValueError(f"`weights` is NaN at row {int(np.isnan(weights).argmax())}")
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if positives == 0 or negatives == 0 or weights.min() == weights.max():
        return None
    # Mann and Whitney: the true rows' ranks, less the ranks that they hold among themselves.
    wins = fractional_ranks(weights)[labels].sum() - positives * (positives - 1) / 2
    return float(wins / (positives * negatives))
