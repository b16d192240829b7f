"""Weights of synthetic rows against their distance to the offline rows ([B] §6, Figure 2, bottom)."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm


# A block of distances, float32, and the rows of a block: the bar moves about every second.
_BLOCK_BYTES = 2**26
_BLOCK_ROWS = 256
# Of the normal distribution, 95 % lie within.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation, and how far it can be trusted.

    Args:
        r (`float`): the correlation.
        low, high (`float`): its 95 % confidence interval (Fisher's z), for independent points.
        points (`int`): how many there are.
        near, far (`Correlation`, *optional*): within the half of the points of smaller `x`, and of larger; `None` where one of the
            two is constant.
    """

    r: float
    low: float
    high: float
    points: int
    near: "Correlation | None" = None
    far: "Correlation | None" = None

    @property
    def is_uneven(self) -> bool:
        """Whether it is no trend throughout, but comes from one end, such as one cluster of points: within a half it is surely
        less than half of `r`, or of the other sign. (Half of a bivariate normal cloud keeps at least 60 % of it.)"""
        direction = math.copysign(1, self.r)
        halves = [half for half in (self.near, self.far) if half is not None]
        return any(max(direction * half.low, direction * half.high) < abs(self.r) / 2 for half in halves)


def distance_to_nearest(
    points: np.ndarray, reference: np.ndarray, k: int = 10, *, progress: bool = False
) -> np.ndarray:
    """Mean L1 distance of every point to its `k` nearest reference points ([B] Figure 2, bottom: synthetic to offline).

    Exact, in float32, by blocks: memory beside the arguments stays below some 100 MB. 10,000 points, 10,000 reference points and
    768 dimensions take some 40 CPU seconds.

    Args:
        points (`np.ndarray` of shape `(P, d)`): embeddings.
        reference (`np.ndarray` of shape `(R, d)`): embeddings.
        k (`int`, *optional*, defaults to `10`): neighbours; at most R are used.
        progress (`bool`, *optional*, defaults to `False`): show a bar.

    Raises:
        ValueError: if there is no reference point.
    """
    if len(reference) == 0:
        raise ValueError("there is no reference point to measure a distance to")
    own, others = (torch.as_tensor(np.asarray(each, dtype=np.float32)) for each in (points, reference))
    k = min(k, len(others))
    rows = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // (4 * len(others))))
    blocks = tqdm(own.split(rows), desc="distances", unit="block", disable=not progress, leave=False)
    nearest = [torch.cdist(block, others, p=1).topk(k, largest=False).values.double().mean(1) for block in blocks]
    return torch.cat(nearest).numpy() if nearest else np.empty(0)


def pearson(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation, or `None` where one of them is constant."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def correlation(x: np.ndarray, y: np.ndarray, *, halves: bool = True) -> Correlation | None:
    """[`Correlation`] of two measurements of the same rows; `None` for fewer than four points or a constant.

    Args:
        x, y (`np.ndarray` of shape `(P,)`): the measurements.
        halves (`bool`, *optional*, defaults to `True`): also within the halves of smaller and larger `x`.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    r = pearson(x, y)
    if r is None or len(x) < 4:
        return None
    low = high = r
    if abs(r) < 1:
        z, error = math.atanh(r), _Z / math.sqrt(len(x) - 3)
        low, high = math.tanh(z - error), math.tanh(z + error)
    near = far = None
    if halves:
        order = np.argsort(x, kind="stable")
        near, far = (correlation(x[half], y[half], halves=False) for half in np.array_split(order, 2))
    return Correlation(r=r, low=low, high=high, points=len(x), near=near, far=far)
