"""Validated selection: what a few updates on trusted rows tell of every row of a pool."""

from dataclasses import asdict, dataclass

import numpy as np

from boost_trl.selection.auc import weights_auc
from boost_trl.selection.rules import fractional_ranks


_TOP = 0.25  # share of the rows that count as the other half's best
_NEAR_CHANCE = 0.6
_HARDLY_DRAWN = 0.75  # share of the rows, those of the smallest weights


def validated_scores(losses: np.ndarray, adapted_losses: np.ndarray) -> np.ndarray:
    r"""\\( f_i = \tfrac12 \ell_i(\theta_0) - \ell_i(\theta) \\), equation (34).

    The half keeps some of what the model as given makes likely, which pure excess loss would punish.

    Args:
        losses (`np.ndarray` of shape `(N,)`): mean losses per token under the model as given, θ₀.
        adapted_losses (`np.ndarray` of shape `(N,)`): the same under the model adapted to trusted rows, θ.
    """
    return 0.5 * np.asarray(losses, np.float64) - np.asarray(adapted_losses, np.float64)


@dataclass(frozen=True)
class ScoreAgreement:
    """Agreement of the scores that two halves of the trusted rows give to the same rows of the pool.

    Args:
        correlation (`float`): Spearman's, of the two halves' scores.
        auc (`float`): probability that a row of the best quarter by one half has a higher score by the other half than a row
            of the rest; mean of both ways. Chance is .5.
    """

    correlation: float
    auc: float

    @property
    def is_near_chance(self) -> bool:
        """Whether one half hardly says what the other does."""
        return self.auc < _NEAR_CHANCE

    def to_dict(self) -> dict[str, float | bool]:
        return asdict(self) | {"is_near_chance": self.is_near_chance}


def score_agreement(first: np.ndarray, second: np.ndarray) -> ScoreAgreement:
    """Agreement of two halves' scores.

    Args:
        first, second (`np.ndarray` of shape `(M,)`): scores of the same rows, at least two.
    """
    ranks = [fractional_ranks(np.asarray(scores, np.float64)) for scores in (first, second)]
    correlation = _correlation(*ranks)
    aucs = []
    for judge, judged in (ranks, ranks[::-1]):
        is_best = judge > np.quantile(judge, 1 - _TOP)
        auc = weights_auc(judged, is_best)
        aucs.append(0.5 if auc is None else auc)
    return ScoreAgreement(correlation, float(np.mean(aucs)))


def round_agreement(scores: np.ndarray, logits: np.ndarray) -> float:
    """Spearman's correlation of a new round's scores with the weights that training has drawn rows by so far, over the three
    quarters of the pool that it has hardly drawn. Of those a model that has learned more says much the same; one that has
    only memorised the rows that it was trained on, good ones and bad ones, has nothing to say.

    Args:
        scores (`np.ndarray` of shape `(N,)`): f by the model as it has been trained so far.
        logits (`np.ndarray` of shape `(N,)`): logarithm of the weights so far.
    """
    is_hardly_drawn = logits <= np.quantile(logits, _HARDLY_DRAWN)
    return _correlation(*(fractional_ranks(values[is_hardly_drawn].astype(np.float64)) for values in (scores, logits)))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if min(first.std(), second.std()) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
