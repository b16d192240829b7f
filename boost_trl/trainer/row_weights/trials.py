"""Trials of scores: what each half of the trusted rows teaches, judged by the other half, and what is chosen by it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from boost_trl.selection import WeightConfidence, weight_confidence
from boost_trl.selection.confidence import confidence_of_folds


EQUAL_WEIGHTS = 1.0
_SAME_RANK = 0.02


@dataclass
class Trial:
    """Scores after some updates on one half of the trusted rows, and what the other half says of them.

    Args:
        loss (`float`): of the other half.
        scores (`np.ndarray` of shape `(M,)`): of a sample of the pool.
        trusted_scores (`np.ndarray` of shape `(T,)`, *optional*): of the other half, where it has the pool's loss.
    """

    loss: float
    scores: np.ndarray
    trusted_scores: np.ndarray | None

    @property
    def rank(self) -> float | None:
        """Probability that a row of the other half has a higher score than one of the sample."""
        if self.trusted_scores is None:
            return None
        return weight_confidence(-self.trusted_scores, -self.scores).auc


def best_steps(halves: list[dict[int, Trial]]) -> int:
    """The number of updates, of those that both halves reached, whose scores rank held-out trusted rows highest, and the largest of
    those that are as good but for noise: all trusted rows bear more updates than a half of them. Where there are no ranks
    it is the one with the lowest loss, which charges a model for being sure of itself, as a rank does not.

    Args:
        halves (`list[dict[int, Trial]]`): of each half, by the number of updates.
    """
    reached = sorted(set.intersection(*map(set, halves)))
    if all(trial.rank is not None for trials in halves for trial in trials.values()):
        ranks = {steps: np.mean([trials[steps].rank for trials in halves]) for steps in reached}
        return max(steps for steps in reached if ranks[steps] >= max(ranks.values()) - _SAME_RANK)
    return min(reached, key=lambda steps: np.mean([trials[steps].loss for trials in halves]))


def confidence_of_halves(halves: list[dict[int, Trial]]) -> WeightConfidence | None:
    """Rank of trusted rows among the pool's by scores that they had no part in.

    How many updates make a half's scores is chosen by the ranks of the *other* half's, or the nearest number below that it
    reached: the highest of several ranks is above chance where there is nothing to learn.

    Args:
        halves (`list[dict[int, Trial]]`): of each half, by the number of updates.
    """
    chosen = reversed([best_steps([half]) for half in halves])
    return confidence_of_trials([half[max(n for n in half if n <= steps)] for half, steps in zip(halves, chosen)])


def confidence_of_trials(trials: list[Trial]) -> WeightConfidence | None:
    """Rank of trusted rows among the pool's, by one trial of each half; `None` where they have no scores."""
    folds = [(trial.trusted_scores, trial.scores) for trial in trials if trial.trusted_scores is not None]
    return confidence_of_folds(folds) if len(folds) == len(trials) else None


def choose_fraction(losses: dict[float, list[float]]) -> tuple[float, str, list[dict[str, Any]]]:
    """The fraction that has the lower loss of held-out trusted rows, why, and what was compared. Weights have to win in both
    halves, which is a gain above its standard error over the two.

    Args:
        losses (`dict[float, list[float]]`): by fraction, that of equal weights first, one loss per half.
    """
    equal, weighted = losses.values()
    wins = all(weights < without for weights, without in zip(weighted, equal))
    means = {fraction: float(np.mean(values)) for fraction, values in losses.items()}
    compared = ", ".join(f"{_name(fraction)} {mean:.4f}" for fraction, mean in means.items())
    reason = f"weights {'lower' if wins else 'do not lower'} the loss of both halves of the trusted rows: {compared}"
    candidates = [{"fraction": fraction, "losses": losses[fraction], "loss": means[fraction]} for fraction in losses]
    return [*losses][wins], reason, candidates


def _name(fraction: float) -> str:
    return "equal weights" if fraction == EQUAL_WEIGHTS else f"n_eff {fraction:.0%}"
