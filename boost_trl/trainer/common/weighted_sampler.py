"""Sampler that draws rows by weight."""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


def systematic_draws(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Row i comes ⌊count·w_i⌋ or ⌈count·w_i⌉ times, count·w_i on average, in random order: (count,).

    Independent draws have the same mean and more noise; equal weights give every row once here, as an epoch does.

    Args:
        weights (`np.ndarray` of shape `(N,)`): not negative, of any positive sum.
        count (`int`): rows to draw.
        rng (`np.random.Generator`): of the one offset and of the orders.
    """
    order = rng.permutation(np.flatnonzero(weights))  # neighbours exclude each other
    ends = np.cumsum(np.asarray(weights, np.float64)[order])
    ends *= count / ends[-1]
    ends[-1] = count
    return rng.permutation(order[np.searchsorted(ends, np.arange(count) + rng.random(), side="right")])


class WeightedSampler(Sampler[int]):
    """As many rows per epoch as there are, drawn by weight. The same on every process; an epoch depends on `seed` and its
    number alone.

    Args:
        weights (`Callable`): returns (N,) the weights; asked when an epoch begins.
        num_rows (`int`): N.
        seed (`int`): fixes every epoch.
    """

    def __init__(self, weights: Callable[[], np.ndarray], num_rows: int, seed: int):
        self.weights, self.num_rows, self.seed = weights, num_rows, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.seed, self.epoch])
        yield from systematic_draws(self.weights(), self.num_rows, rng).tolist()
