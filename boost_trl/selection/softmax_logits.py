"""A softmax over millions of logits, of which a step changes a few."""

from collections.abc import Iterator

import numpy as np


_CHUNK = 1 << 16  # rows per pass over all logits: the temporaries stay in the processor's cache
_TOLERANCE = 1e-9  # relative error that the running sums may gather before they are recomputed
_ABSENT = -1e4  # stands for ω − shift of a row without a logit: its exponential is exactly 0
_HEADROOM = 50.0  # a logit this far above the shift moves the shift, long before exp() overflows


class SoftmaxLogits:
    """Logits ω and the sums that their softmax, its entropy and its effective sample size need.

    A row has no logit of its own (NaN in `values`) until one is assigned. It stands where the others are on average, at
    the log-mean-exp of their ω, so that it weighs one and a row that joins changes no other's weight.

    Three float64 sums over the rows with a logit are kept, with u = ω − shift: Σ eᵘ, Σ e²ᵘ and Σ u eᵘ. Assigning B rows
    corrects them in O(B). The rounding error of these corrections is bounded as they are made, and the sums are
    recomputed from all rows when the bound passes a relative 1e-9, so that they stay exact to float32 however long
    training lasts.

    Args:
        num_rows (`int`): N.
    """

    def __init__(self, num_rows: int):
        self.values = np.full(num_rows, np.nan, dtype=np.float32)
        self.sums = np.zeros(3)
        self._count = np.zeros(1, dtype=np.int64)
        self._shift = np.zeros(1)
        self._drift = np.zeros(3)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def count(self) -> int:
        """Number of rows with a logit of their own."""
        return int(self._count[0])

    def state(self) -> dict[str, np.ndarray]:
        """The live arrays, sums included: sums that were recomputed on resume would differ in their last bits."""
        return {
            "logits": self.values,
            "sums": self.sums,
            "count": self._count,
            "shift": self._shift,
            "drift": self._drift,
        }

    def weights(self, ids: np.ndarray) -> np.ndarray:
        """N·σ(ω) of some rows, float64."""
        return self._weights(self.values[ids])

    def common_logit(self) -> float:
        """The log-mean-exp of the logits, 0 without any: ω of the rows that have none of their own."""
        return float(self._shift[0] + np.log(self.sums[0] / self.count)) if self.count else 0.0

    def all_logits(self) -> np.ndarray:
        """ω of all rows, float32 (N,)."""
        return np.where(np.isnan(self.values), np.float32(self.common_logit()), self.values)

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """(rows, N·σ(ω) of these rows, 0 of those without a logit) over all rows, as they were at the start while a
        caller changes `values`."""
        scale, shift = self.count / self.sums[0], self._shift[0]
        for start in range(0, len(self), _CHUNK):
            rows = slice(start, start + _CHUNK)
            yield rows, np.exp(_centred(self.values[rows], shift)) * scale

    def join(self, ids: np.ndarray) -> None:
        """Give a logit to those of these rows, all different, that have none: the one at which they weigh one."""
        new = ids[np.isnan(self.values[ids])]
        if new.size:
            self.assign(new, np.full(len(new), self.common_logit()))

    def assign(self, ids: np.ndarray, values: np.ndarray) -> None:
        """Set the logits of rows that are all different."""
        values = values.astype(np.float32)
        old = self.values[ids]
        if not self.count or (values.size and values.max() - self._shift[0] > _HEADROOM):
            self.values[ids] = values
            self.recompute()
            return
        change = self._terms(values) - self._terms(old)
        self.values[ids] = values
        self._count += np.count_nonzero(np.isnan(old))
        self.sums += change.sum(axis=1)
        self._drift += np.abs(change).sum(axis=1)
        # Σ u eᵘ enters the entropy divided by Σ eᵘ, so that sum's error is measured against Σ eᵘ as well.
        scale = np.array([self.sums[0], self.sums[1], self.sums[0]])
        if np.any(self._drift * np.finfo(np.float64).eps > _TOLERANCE * scale):
            self.recompute()

    def recompute(self) -> None:
        """The sums from all rows, O(N)."""
        self.sums[:], self._count[0], self._shift[0] = 0.0, np.count_nonzero(~np.isnan(self.values)), 0.0
        if self.count:
            self._shift[0] = np.fmax.reduce(self.values)
        for start in range(0, len(self), _CHUNK):
            self.sums += self._terms(self.values[start : start + _CHUNK]).sum(axis=1)
        # What the correction of a term so large that it was never seen here may lose is at most the sums themselves.
        self._drift[:] = np.abs(self.sums)

    def effective_sample_size(self) -> float:
        """1/Σσ², between 1 and N."""
        if not self.count:
            return float(len(self))
        of_own = self.count**2 * self.sums[1] / self.sums[0] ** 2  # Σ (N σ)² over the rows with a logit
        return float(len(self) ** 2 / (of_own + len(self) - self.count))

    def entropy(self) -> float:
        """−Σ σ log σ, between 0 and log N."""
        if not self.count:
            return float(np.log(len(self)))
        # Every row is first drawn from the rows with a logit or from the rest, then among its like.
        of_own = np.log(self.sums[0]) - self.sums[2] / self.sums[0] - np.log(self.count)
        return float(np.log(len(self)) + self.count / len(self) * of_own)

    def largest_weight(self) -> float:
        """The largest N·σ(ω)."""
        return float(self._weights(np.fmax.reduce(self.values))) if self.count else 1.0

    def _weights(self, values: np.ndarray) -> np.ndarray:
        if not self.count:
            return np.ones(np.shape(values))
        weights = np.exp(values.astype(np.float64) - self._shift[0]) * (self.count / self.sums[0])
        return np.where(np.isnan(values), 1.0, weights)

    def _terms(self, values: np.ndarray) -> np.ndarray:
        u = _centred(values, self._shift[0])
        e = np.exp(u)
        return np.stack([e, e * e, u * e])


def _centred(values: np.ndarray, shift: float | np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), _ABSENT, values.astype(np.float64) - shift)
