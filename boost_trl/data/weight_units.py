"""Units that have a weight of their own: whole trajectories, or each of their assistant turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from boost_trl.data.ragged import ragged_ranges
from boost_trl.data.tokenization import TokenizedTrajectory


WEIGHT_LEVELS = ("trajectory", "turn")


@dataclass(frozen=True)
class WeightUnits:
    """The U units of N rows, numbered row after row. A unit is a row as a whole, or one of its turns; all that follows is
    the same for both.

    A unit's share is the part of its row's action tokens that it has. Shares of a row sum to one, so that units whose
    weights are their shares train what rows that count alike do.

    Args:
        counts (`np.ndarray` of shape `(N,)`): units of each row, at least one.
        lengths (`np.ndarray` of shape `(U,)`): action tokens of each unit, at least one.
        ends (`np.ndarray` of shape `(U,)`): position of each unit's last token in its row.
    """

    counts: np.ndarray
    lengths: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[TokenizedTrajectory], level: str) -> "WeightUnits":
        """Units of these rows at `level`, `"trajectory"` or `"turn"`.

        Raises:
            ValueError: for an unknown level.
        """
        if level not in WEIGHT_LEVELS:
            raise ValueError(f"`weight_level` must be 'trajectory' or 'turn', got {level!r}")
        if level == "trajectory":
            ends = np.array([len(row.input_ids) - 1 for row in rows])
            return cls.whole_rows(np.array([len(row.action_positions) for row in rows]), ends)
        lengths = [row.turn_lengths for row in rows]
        ends = [row.action_positions[np.cumsum(turns) - 1] for row, turns in zip(rows, lengths)]
        return cls(np.array([len(turns) for turns in lengths]), np.concatenate(lengths), np.concatenate(ends))

    @classmethod
    def whole_rows(cls, action_counts: np.ndarray, ends: np.ndarray | None = None) -> "WeightUnits":
        """One unit per row, given the action tokens of each row, (N,), and the position of its last token."""
        action_counts = np.asarray(action_counts)
        return cls(np.ones_like(action_counts), action_counts, action_counts if ends is None else ends)

    def __len__(self) -> int:
        return len(self.lengths)

    def first(self, num_rows: int) -> "WeightUnits":
        """Those of rows 0..num_rows-1."""
        total = self.counts[:num_rows].sum()
        return WeightUnits(self.counts[:num_rows], self.lengths[:total], self.ends[:total])

    @cached_property
    def rows(self) -> np.ndarray:
        """The row of every unit, (U,)."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    @cached_property
    def row_lengths(self) -> np.ndarray:
        """Action tokens of every row, (N,)."""
        return np.add.reduceat(self.lengths, np.cumsum(self.counts) - self.counts)

    @cached_property
    def shares(self) -> np.ndarray:
        """Part of its row's action tokens that every unit has, (U,)."""
        return self.lengths / self.row_lengths[self.rows]

    def of_rows(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The units of `rows`, row after row."""
        rows = np.asarray(rows, dtype=np.int64)
        return ragged_ranges(np.cumsum(self.counts)[rows] - self.counts[rows], self.counts[rows])

    def total_by_row(self, values: np.ndarray) -> np.ndarray:
        """Sums of values of the units, (U,), over each row, (N,)."""
        return np.bincount(self.rows, weights=values, minlength=len(self.counts))

    def mean_by_row(self, values: np.ndarray) -> np.ndarray:
        """Means of values of the units, (U,), by their shares, over each row, (N,)."""
        return self.total_by_row(self.shares * values)

    def within_rows(self, weights: np.ndarray) -> np.ndarray:
        r"""Factors of the units in a row that is drawn by its total weight, equation (38), (U,): mean one by shares.

        Args:
            weights (`np.ndarray` of shape `(U,)`): not negative.
        """
        densities, totals = weights / self.shares, self.total_by_row(weights)[self.rows]
        # A row without any weight is never drawn.
        return np.divide(densities, totals, out=np.ones(len(self)), where=totals > 0)
