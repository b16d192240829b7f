"""Optimizer batches that mix pool rows, drawn by weight, with validation rows, and the sampler that draws them. The last
batches may hold validation rows only."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


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
        num_steps (`int`, *optional*): batches in all, of which ...
        finish_share (`float`, *optional*, defaults to `0.0`): ... this last share, to the nearest whole batch, comes from
            validation alone.

    Raises:
        ValueError: if the weights are no distribution.
    """

    def __init__(
        self,
        weights: np.ndarray,
        num_validation: int,
        share: float,
        seed: int,
        *,
        num_steps: int = 0,
        finish_share: float = 0.0,
    ):
        weights = np.asarray(weights, dtype=np.float64)
        total = weights.sum()
        if not (np.isfinite(total) and total > 0 and (weights >= 0).all()):
            raise ValueError("`weights` must be finite, not negative and not all zero")
        self.num_pool = len(weights)
        self.num_validation = num_validation
        self.share = share if num_validation else 0.0
        self.seed = seed
        finishing = round(finish_share * num_steps) if num_validation else 0
        self.finish_start = num_steps - finishing if finishing else math.inf
        self._cumulative = np.cumsum(weights) / total
        # Rounding must not leave a gap above the last row that has any weight.
        self._cumulative[np.flatnonzero(weights)[-1] :] = 1.0

    def validation_count(self, step: int, size: int) -> int:
        """Number of validation rows in batch `step` of `size` rows."""
        if step >= self.finish_start:
            return size
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


class MixedBatchSampler(Sampler[int]):
    """Row numbers of an epoch's [`WeightedBatches`], one optimizer batch after the other. The same on every process.

    Args:
        batches (`Callable[[], WeightedBatches]`): asked when an epoch begins, because a checkpoint may bring the weights after
            the data loader is made.
        num_rows (`int`): that make an epoch.
        micro_batch_size (`int`): rows of a micro-batch, over all processes.
        accumulation_steps (`int`): micro-batches of an optimizer batch.
        last (`str`): an epoch's last micro-batch, where rows do not suffice for a whole one: `"short"`, `"filled"` by more
            draws (a data loader of several processes would repeat the epoch's first rows), or `"dropped"`.
    """

    def __init__(
        self,
        batches: Callable[[], WeightedBatches],
        num_rows: int,
        micro_batch_size: int,
        accumulation_steps: int,
        last: str,
    ):
        self.batches = batches
        rest = num_rows % micro_batch_size
        self.num_rows = num_rows + {"short": 0, "filled": -num_rows % micro_batch_size, "dropped": -rest}[last]
        self.batch_size = micro_batch_size * accumulation_steps
        self.epoch = 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer batches of an epoch."""
        return max(1, math.ceil(self.num_rows / self.batch_size))

    def set_epoch(self, epoch: int) -> None:
        """Draw the rows of this epoch, from 0, next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        batches, step = self.batches(), self.epoch * self.steps_per_epoch
        for start in range(0, self.num_rows, self.batch_size):
            yield from batches.rows(step, min(self.batch_size, self.num_rows - start)).tolist()
            step += 1
