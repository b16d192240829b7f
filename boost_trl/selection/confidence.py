"""Confidence in weights that come from losses: where trusted rows that nothing trained on rank in the pool."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np


_ONE_SIDED = 1.645  # standard errors above chance that 5 % of chance results exceed
_LIKE_TRUSTED = 0.9
# A model knows the rows that it was trained on, so that those kept aside rank somewhat low among equals.
_FAR_BELOW_CHANCE = 0.25


@dataclass(frozen=True)
class WeightConfidence:
    """Rank of held-out trusted rows among the pool's rows by the loss that weights are learned from.

    A loss-based selector keeps the rows of low loss. That is worth something only if trusted rows, which nothing has
    trained on, have a lower loss than most of the pool.

    Args:
        num_trusted (`int`): held-out trusted rows.
        auc (`float`): probability that a trusted row has a lower loss than a row of the pool, ties counting half. Chance is
            .5; if a share b of the pool is bad and told apart without an error, it is .5 + b/2.
        chance_error (`float`): standard error of `auc` where trusted and pool rows are alike.
        trusted_share (`float`): share of the pool with a loss below the 90th percentile of the trusted rows', in [0, 1]: to
            keep less than this drops rows like the trusted ones.
    """

    num_trusted: int
    auc: float
    chance_error: float
    trusted_share: float

    @property
    def is_near_chance(self) -> bool:
        """Whether rows that are all alike would give this `auc`, or a lower one, in at least 5 % of cases."""
        return self.auc < 0.5 + _ONE_SIDED * self.chance_error

    @property
    def is_against(self) -> bool:
        """Whether trusted rows have a much *higher* loss than the pool's: the selector prefers what contradicts them."""
        return self.auc < min(_FAR_BELOW_CHANCE, 0.5 - _ONE_SIDED * self.chance_error)

    def verdict(self) -> str:
        """One sentence."""
        measured = (
            f"a trusted row that nothing trained on has a lower loss than {self.auc:.0%} of the pool (chance: 50 ± "
            f"{self.chance_error:.0%}, {self.num_trusted} rows)"
        )
        if self.is_against:
            return f"The weights prefer rows unlike the trusted ones: {measured}. Probably most of the pool is bad."
        if self.is_near_chance:
            return f"The weights are near chance: {measured}. They may say how hard a row is, not how good."
        return f"Trusted rows agree with the weights: {measured}."

    def to_dict(self) -> dict[str, float | bool | str]:
        return asdict(self) | {"is_near_chance": self.is_near_chance, "verdict": self.verdict()}


def weight_confidence(
    trusted_losses: np.ndarray, pool_losses: np.ndarray, num_pool: int | None = None
) -> WeightConfidence:
    """Confidence in weights from losses of pool and trusted rows.

    Args:
        trusted_losses (array of `float`): (T,) mean losses of trusted rows that nothing trained on.
        pool_losses (array of `float`): (M,) mean losses of rows of the pool, under the same model.
        num_pool (`int`, *optional*, defaults to M): rows of the pool behind them, where each has several losses.

    Raises:
        ValueError: for no rows, or a loss that is NaN.
    """
    trusted, pool = np.asarray(trusted_losses, float).ravel(), np.sort(np.asarray(pool_losses, float).ravel())
    if not len(trusted) or not len(pool):
        raise ValueError(f"both need rows, got {len(trusted)} trusted losses and {len(pool)} of the pool")
    if np.isnan(trusted).any() or np.isnan(pool).any():
        raise ValueError("a loss is not a number")
    below, not_above = (np.searchsorted(pool, trusted, side=side) / len(pool) for side in ("left", "right"))
    places = 1 - (below + not_above) / 2
    rows = len(pool) if num_pool is None else num_pool
    return WeightConfidence(
        num_trusted=len(trusted),
        auc=float(places.mean()),
        # Mann and Whitney
        chance_error=float(np.sqrt((len(trusted) + rows + 1) / (12 * len(trusted) * rows))),
        trusted_share=float(1 - np.quantile(places, 1 - _LIKE_TRUSTED)),
    )


def confidence_of_folds(folds: Iterable[tuple[np.ndarray, np.ndarray]]) -> WeightConfidence:
    """Confidence in weights from scores of several folds of the trusted rows, each of which has a scale of its own.

    Args:
        folds (`Iterable`): of each fold the scores of its rows, by what the other folds teach, and by the same those of the pool, (M,).
    """
    trusted, pool = [], []
    for of_trusted, of_pool in folds:
        middle, spread = of_pool.mean(), of_pool.std() or 1.0
        trusted.append((of_trusted - middle) / spread)
        pool.append((of_pool - middle) / spread)
    return weight_confidence(-np.concatenate(trusted), -np.concatenate(pool), num_pool=len(pool[0]))
