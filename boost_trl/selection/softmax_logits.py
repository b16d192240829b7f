"""A softmax over millions of logits, of which a step changes a few."""

from collections.abc import Iterator

import numpy as np


_CHUNK = 1 << 16  # rows per pass over all logits: the temporaries stay in the processor's cache
_TOLERANCE = 1e-9  # relative error that the running sums may gather before they are recomputed
_HEADROOM = 50.0  # a logit this far above the shift moves the shift, long before exp() overflows


class SoftmaxLogits:
    """Logits ω and the sums that their softmax, its entropy and its effective sample size need.

    Three float64 sums are kept, with u = ω − shift: Σ eᵘ, Σ e²ᵘ and Σ u eᵘ. Assigning B rows corrects them in O(B). The
    rounding error of these corrections is bounded as they are made, and the sums are recomputed from all rows when the
    bound passes a relative 1e-9, so that they stay exact to float32 however long training lasts.

    Args:
        num_rows (`int`): N.
    """

    def __init__(self, num_rows: int):
        self.values = np.zeros(num_rows, dtype=np.float32)
        self.sums = np.array([num_rows, num_rows, 0.0])
        self._shift = np.zeros(1)
        self._drift = np.zeros(3)

    def __len__(self) -> int:
        return len(self.values)

    def state(self) -> dict[str, np.ndarray]:
        """The live arrays, sums included: sums that were recomputed on resume would differ in their last bits."""
        return {"logits": self.values, "sums": self.sums, "shift": self._shift, "drift": self._drift}

    def probabilities(self, ids: np.ndarray) -> np.ndarray:
        """σ(ω) of some rows, float64."""
        return np.exp(self.values[ids].astype(np.float64) - self._shift) / self.sums[0]

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """(rows, σ(ω) of these rows) over all rows; `sums` stay those of the start while a caller changes `values`."""
        shift, total = self._shift.copy(), self.sums[0]
        for start in range(0, len(self), _CHUNK):
            rows = slice(start, start + _CHUNK)
            yield rows, np.exp(self.values[rows].astype(np.float64) - shift) / total

    def assign(self, ids: np.ndarray, values: np.ndarray) -> None:
        """Set the logits of rows that are all different."""
        values = values.astype(np.float32)
        if values.size and values.max() - self._shift[0] > _HEADROOM:
            self.values[ids] = values
            self.recompute()
            return
        change = self._terms(values) - self._terms(self.values[ids])
        self.values[ids] = values
        self.sums += change.sum(axis=1)
        self._drift += np.abs(change).sum(axis=1)
        # Σ u eᵘ enters the entropy divided by Σ eᵘ, so that sum's error is measured against Σ eᵘ as well.
        scale = np.array([self.sums[0], self.sums[1], self.sums[0]])
        if np.any(self._drift * np.finfo(np.float64).eps > _TOLERANCE * scale):
            self.recompute()

    def recompute(self) -> None:
        """The sums from all rows, O(N)."""
        self._shift[0] = self.values.max()
        self.sums[:] = 0.0
        for start in range(0, len(self), _CHUNK):
            self.sums += self._terms(self.values[start : start + _CHUNK]).sum(axis=1)
        # What the correction of a term so large that it was never seen here may lose is at most the sums themselves.
        self._drift[:] = np.abs(self.sums)

    def effective_sample_size(self) -> float:
        """1/Σσ², between 1 and N."""
        return float(self.sums[0] ** 2 / self.sums[1])

    def entropy(self) -> float:
        """−Σ σ log σ, between 0 and log N."""
        return float(np.log(self.sums[0]) - self.sums[2] / self.sums[0])

    def largest_probability(self) -> float:
        return float(np.exp(float(self.values.max()) - self._shift[0]) / self.sums[0])

    def _terms(self, values: np.ndarray) -> np.ndarray:
        u = values.astype(np.float64) - self._shift
        e = np.exp(u)
        return np.stack([e, e * e, u * e])
