"""Optimizer batches that mix pool rows, drawn by weight, with validation rows."""

import math

import numpy as np


class WeightedBatches:
    """Rows of optimizer batches: a fixed share from validation, the rest from the pool, drawn by weight.

    A batch depends on `seed` and its step alone, so every process draws the same one, however it is cut into
    micro-batches, and a resumed run goes on with the batches of the uninterrupted one.

    Args:
        weights (`np.ndarray` of shape `(N,)`): of the pool rows 0..N-1; drawn with replacement.
        num_validation (`int`): validation rows, numbered from N; drawn without replacement within a batch, as far as
            there are enough.
        share (`float`): of a batch that comes from validation. Where it is no whole number of rows, batches take one
            more or one less, so that the running total is right.
        seed (`int`): fixes all draws.

    Raises:
        ValueError: if the weights are no distribution.
    """

    def __init__(self, weights: np.ndarray, num_validation: int, share: float, seed: int):
        weights = np.asarray(weights, dtype=np.float64)
        total = weights.sum()
        if not (np.isfinite(total) and total > 0 and (weights >= 0).all()):
            raise ValueError("`weights` must be finite, not negative and not all zero")
        self.num_pool = len(weights)
        self.num_validation = num_validation
        self.share = share if num_validation else 0.0
        self.seed = seed
        self._cumulative = np.cumsum(weights) / total
        # Rounding must not leave a gap above the last row that has any weight.
        self._cumulative[np.flatnonzero(weights)[-1] :] = 1.0

    def validation_count(self, step: int, size: int) -> int:
        """Number of validation rows in batch `step` of `size` rows."""
        exact = self.share * size
        return math.floor((step + 1) * exact + 1e-9) - math.floor(step * exact + 1e-9)

    def rows(self, step: int, size: int) -> np.ndarray:
        """The rows of batch `step` in random order, (size,)."""
        rng = np.random.default_rng([self.seed, step])
        validation_count = self.validation_count(step, size)
        pool = np.searchsorted(self._cumulative, rng.random(size - validation_count), side="right")
        passes = -(-validation_count // max(1, self.num_validation))
        validation = [rng.permutation(self.num_validation) for _ in range(passes)]
        validation = np.concatenate([np.empty(0, dtype=np.int64), *validation])[:validation_count]
        return rng.permutation(np.concatenate([pool, self.num_pool + validation]))
