"""Validated selection's scores and how far two halves agree."""

import numpy as np
import pytest

from boost_trl.selection import Selector, round_agreement, score_agreement, temper, validated_scores


def test_scores_by_hand():
    assert validated_scores(np.array([2.0, 1.0]), np.array([0.5, 1.5])).tolist() == [0.5, -1.0]


def test_equal_scores_agree_and_opposite_ones_do_not():
    scores = np.random.default_rng(0).normal(size=40)
    same, opposite = score_agreement(scores, 3 * scores + 1), score_agreement(scores, -scores)
    assert (same.correlation, same.auc) == pytest.approx((1, 1)) and not same.is_near_chance
    assert (opposite.correlation, opposite.auc) == pytest.approx((-1, 0)) and opposite.is_near_chance


def test_unrelated_scores_are_near_chance():
    rng = np.random.default_rng(1)
    agreement = score_agreement(rng.normal(size=2000), rng.normal(size=2000))
    assert agreement.correlation == pytest.approx(0, abs=0.07) and agreement.auc == pytest.approx(0.5, abs=0.04)
    assert agreement.is_near_chance


def test_constant_scores_say_nothing():
    agreement = score_agreement(np.zeros(8), np.arange(8.0))
    assert (agreement.correlation, agreement.auc) == (0, 0.5)


def test_agreement_counts_pairs():
    first, second = np.array([0.0, 1, 2, 3, 4, 5, 6, 7]), np.array([0.0, 1, 2, 3, 4, 7, 6, 5])
    # The best two by `first` are rows 6 and 7, each above five of the other six by `second`; the best two by `second` are
    # rows 5 and 6, each above five of the other six by `first`.
    assert score_agreement(first, second).auc == pytest.approx((5 + 5) / 12)


def test_rows_that_were_drawn_have_no_say_in_a_rounds_agreement():
    logits = np.array([0.0, -1, -2, -3, -4, -5, -6, -7])  # the upper quarter: the first two
    scores = np.array([0.0, 9, 8, 7, 6, 5, 4, 3])
    assert round_agreement(scores, logits) == pytest.approx(1)
    scores[:2], scores[2:] = [9, 8], [3, 4, 5, 6, 7, 8]
    assert round_agreement(scores, logits) == pytest.approx(-1)
    scores[2:] = [7, 8, 6, 5, 4, 3]  # one pair of neighbours changed places: 1 − 6 · 2 / (6 · 35)
    assert round_agreement(scores, logits) == pytest.approx(1 - 12 / 210)
    assert round_agreement(np.zeros(8), logits) == 0


def test_the_selectors_weights_are_those_of_its_logits():
    scores = np.random.default_rng(2).normal(size=50)
    weights, tempering = temper(scores, 0.2)
    selector = Selector(50, selector="validated")
    selector.assign(tempering * scores)
    assert selector.weights().numpy() == pytest.approx(50 * weights, rel=1e-5)
    assert selector.effective_sample_size() == pytest.approx(10, rel=1e-5)
    selector.update(np.arange(5), np.arange(5.0), 1.0)
    assert selector.weights().numpy() == pytest.approx(50 * weights, rel=1e-5)


@pytest.mark.parametrize(
    ("selector", "logits", "message"),
    [
        ("validated", [0.0, 1.0], "has 2 rows, not 3"),
        ("validated", [0.0, np.inf, 1.0], "logit of row 1 is not finite"),
        ("rank", [0.0, 0.0, 0.0], 'only selector="validated"'),
    ],
)
def test_bad_logits_are_refused(selector, logits, message):
    with pytest.raises(ValueError, match=message):
        Selector(3, selector=selector).assign(np.array(logits))
