"""Length of the short trainings of validated selection, and what scoring costs in all."""

from dataclasses import dataclass

import numpy as np


STEPS = (5, 10, 20, 40, 80)
# Rows of an update, of the pool and of the trusted ones each.
BATCH = 32
# Places of the pool by which the halves are compared, and their numbers of updates.
SAMPLE = 256
# The share of training's updates that all short trainings take together, and the length of each.
_GUARD_SHARE, _SHORTEST, _LONGEST = 0.1, 20, 100


@dataclass(frozen=True)
class ScoringBudget:
    """Updates of validated selection. A short training is not worth a long preparation.

    Args:
        steps (`tuple[int]`): candidates for the number of updates on trusted rows, ascending.
        guard_steps (`int`): updates of each short training with the pool; 0 without a guard.
        guard_batch (`int`): rows of such an update, of the pool and of the trusted ones each.
    """

    steps: tuple[int, ...]
    guard_steps: int
    guard_batch: int

    @classmethod
    def of(cls, num_updates: int, has_guard: bool, batch_size: int) -> "ScoringBudget":
        """The budget before a training of `num_updates` on `batch_size` rows each."""
        longest = max(num_updates, STEPS[1])
        guard_steps = min(int(np.clip(_GUARD_SHARE * num_updates / 4, _SHORTEST, _LONGEST)), longest)
        steps = tuple(steps for steps in STEPS if steps <= longest)
        return cls(steps, guard_steps * has_guard, min(BATCH, batch_size))

    @property
    def num_updates(self) -> int:
        """At most: of two halves and all trusted rows, and of two halves' short trainings with and without weights."""
        return 3 * self.steps[-1] + 4 * self.guard_steps

    def num_rows(self, num_pool: int, num_trusted: int, rounds: int = 1) -> tuple[int, int]:
        """Rows that are trained on, at most, and rows whose loss is only read.

        Args:
            num_pool (`int`), num_trusted (`int`): rows that there are.
            rounds (`int`, *optional*, defaults to `1`): how often the pool is scored in all.
        """
        half = -(-num_trusted // 2)
        adapting = self.steps[-1] * (2 * min(BATCH, half) + min(BATCH, num_trusted))
        guarding = 4 * self.guard_steps * (min(self.guard_batch, num_pool) + min(self.guard_batch, half))
        judged = 2 * len(self.steps) + 1 + 2 * (self.guard_steps > 0)
        read = (1 + rounds) * num_pool + 2 * len(self.steps) * min(SAMPLE, num_pool) + 2 * judged * half
        return adapting + guarding, read
