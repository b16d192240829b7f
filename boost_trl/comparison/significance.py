"""Means and paired differences of what is measured on items, such as games or rows, with several seeds."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from boost_trl.comparison.results import standard_error
from boost_trl.tables import plus_minus


class Estimate(NamedTuple):
    """A mean with its two errors.

    Args:
        mean (`float`): over seeds of the means over items.
        seeds_error (`float` or `None`): standard error over seeds, which holds that over items; `None` for one seed.
        items_error (`float`): standard error over items alone: what is left if the seeds are all that there are.
        seeds (`int`): their number.
    """

    mean: float
    seeds_error: float | None
    items_error: float
    seeds: int

    @property
    def error(self) -> float:
        """Standard error over seeds, or over items for one seed."""
        return self.items_error if self.seeds_error is None else self.seeds_error

    @property
    def p(self) -> float:
        """The two-sided p-value of a mean of zero: Student's t over seeds, since training with another seed gives another
        policy; with one seed the normal distribution over items, which says nothing about other seeds."""
        if self.error == 0:
            return float(self.mean == 0)
        ratio = abs(self.mean) / self.error
        return 2 * NormalDist().cdf(-ratio) if self.seeds_error is None else student_p(ratio, self.seeds - 1)

    def text(self, style: str = ".2f") -> str:
        """Mean ± error, a star for p < .05 where `style` shows a sign."""
        star = "\\*" if style.startswith("+") and self.p < 0.05 else ""
        return plus_minus(self.mean, self.error, style) + star


def estimate(values: Sequence[Sequence[float]]) -> Estimate:
    """The mean of values by seed and item; each seed counts as much as any other.

    Args:
        values (`Sequence[Sequence[float]]`): per seed those of its items.
    """
    means = [float(np.mean(items)) for items in values]
    within = math.sqrt(sum(standard_error(items) ** 2 for items in values)) / len(values)
    return Estimate(float(np.mean(means)), standard_error(means) if len(means) > 1 else None, within, len(means))


def paired_estimate(
    ours: Mapping[int, Sequence[float | None]], theirs: Mapping[int, Sequence[float | None]]
) -> Estimate | None:
    """The mean difference, ours − theirs, of the seeds that both have, paired item by item; `None` if there is none.

    Args:
        ours (`Mapping`), theirs (`Mapping`): by seed the values of the same items in the same order; `None` for a missing
            one.
    """
    pairs = [
        [a - b for a, b in zip(ours[seed], theirs[seed], strict=True) if a is not None and b is not None]
        for seed in sorted(ours.keys() & theirs.keys())
    ]
    pairs = [differences for differences in pairs if differences]
    return estimate(pairs) if pairs else None


def student_p(t: float, dof: int) -> float:
    """The two-sided p-value of Student's t with `dof` degrees of freedom.

    With t = √dof · tan(a) the density is proportional to cos(a)^(dof − 1).
    """
    tail, half = (np.linspace(start, math.pi / 2, 10_001) for start in (math.atan(abs(t) / math.sqrt(dof)), 0.0))
    areas = [np.trapezoid(np.cos(angles) ** (dof - 1), angles) for angles in (tail, half)]
    return float(areas[0] / areas[1])


def sign_test(higher: int, lower: int) -> float:
    """The exact two-sided p-value of so uneven a split or a more uneven one, if both signs are as likely."""
    count = higher + lower
    tail = sum(math.comb(count, k) for k in range(min(higher, lower) + 1)) / 2**count
    return min(1.0, 2 * tail)
