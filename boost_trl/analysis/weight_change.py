"""Weights relative to equal ones, row by row and by kind of row ([B] §6, Figure 2, top)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GroupChange:
    """Change of the weights of one kind of row from equal weights.

    Args:
        name (`str`): the kind.
        rows (`int`): how many there are.
        mean (`float`): mean of N·w̃_i − 1; 0: as if all rows were equal, −1: ignored, 1: counts double.
        error (`float`): standard error of the mean; 0 for one row.
        low, high (`float`): the middle 80 % of the rows lie between them.
        gained (`float`): share of the rows with a change above 0.
        weight_share (`float`): share of all weight that the kind has.
    """

    name: str
    rows: int
    mean: float
    error: float
    low: float
    high: float
    gained: float
    weight_share: float


def relative_weight_change(weights: np.ndarray) -> np.ndarray:
    """N·w̃_i − 1, the change from uniform weights ([B] Figure 2, top).

    Args:
        weights (`np.ndarray` of shape `(N,)`): weights of the whole training set, any positive scale.
    """
    weights = np.asarray(weights, dtype=np.float64)
    return weights * len(weights) / weights.sum() - 1


def change_by_group(weights: np.ndarray, groups: Sequence[str] | np.ndarray) -> list[GroupChange]:
    """[`GroupChange`] of every kind of row, the one that gained most first.

    Args:
        weights (`np.ndarray` of shape `(N,)`): weights of the whole training set, any positive scale.
        groups (sequence of N `str`): the kind of every row.

    Raises:
        ValueError: if there are not as many kinds as weights.
    """
    change, kinds = relative_weight_change(weights), np.asarray(groups)
    if len(kinds) != len(change):
        raise ValueError(f"`groups` must name the kind of each of the {len(change)} rows, got {len(kinds)}")
    found = []
    for name in dict.fromkeys(kinds.tolist()):
        own = change[kinds == name]
        low, high = np.quantile(own, [0.1, 0.9])
        found.append(
            GroupChange(
                name=name,
                rows=len(own),
                mean=float(own.mean()),
                error=float(own.std(ddof=1) / len(own) ** 0.5) if len(own) > 1 else 0.0,
                low=float(low),
                high=float(high),
                gained=float((own > 0).mean()),
                weight_share=float((own + 1).sum() / len(change)),
            )
        )
    return sorted(found, key=lambda group: -group.mean)
