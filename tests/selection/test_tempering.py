import numpy as np
import pytest

from boost_trl.selection import effective_sample_size, temper


@pytest.mark.parametrize("fraction", [0.05, 0.4, 0.7, 0.99])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_tempering_hits_the_effective_sample_size(fraction, scale):
    scores = np.random.default_rng(0).normal(size=500) * scale
    weights, k = temper(scores, fraction)
    assert weights.sum() == pytest.approx(1)
    assert 1 / (weights**2).sum() == pytest.approx(fraction * 500, rel=1e-6)
    np.testing.assert_allclose(np.log(weights[1:] / weights[0]), k * (scores[1:] - scores[0]), atol=1e-8)


def test_tempering_where_the_target_is_out_of_reach():
    weights, k = temper(np.full(5, 3.0), 0.4)
    assert k == 0 and (weights == 0.2).all()
    weights, k = temper(np.array([0.0, 1.0]), 1.0)
    assert k == 0 and (weights == 0.5).all()
    # Three of five rows share the best score: two effective rows cannot be had.
    weights, _ = temper(np.array([2.0, 1.0, 2.0, 0.0, 2.0]), 0.4)
    np.testing.assert_allclose(weights, [1 / 3, 0, 1 / 3, 0, 1 / 3], atol=1e-12)
    with pytest.raises(ValueError, match="row 1 is not finite"):
        temper(np.array([0.0, np.nan]), 0.4)


def test_tempered_turns_count_by_their_shares():
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 5, size=200)
    lengths, rows = rng.integers(1, 9, size=counts.sum()), np.repeat(np.arange(200), counts)
    shares = lengths / np.bincount(rows, weights=lengths)[rows]
    scores = rng.normal(size=counts.sum())
    weights, k = temper(scores, 0.4, shares)
    assert weights.sum() == pytest.approx(1)
    assert (weights**2 / shares).sum() ** -1 == pytest.approx(0.4 * 200, rel=1e-6)
    np.testing.assert_allclose(weights / weights[0], shares / shares[0] * np.exp(k * (scores - scores[0])))
    # A row's turns with one score are weighed as the row.
    tied, k_tied = temper(scores[rows], 0.4, shares)
    of_rows, k_rows = temper(scores[:200], 0.4)
    assert k_tied == pytest.approx(k_rows, rel=1e-9)
    np.testing.assert_allclose(np.bincount(rows, weights=tied), of_rows, rtol=1e-9)
    np.testing.assert_allclose(temper(scores, 1.0, shares)[0], shares / 200)


def test_effective_sample_size_of_weights_of_any_sum():
    assert effective_sample_size(np.ones(4)) == pytest.approx(4)
    assert effective_sample_size(np.array([2.0, 0.0])) == pytest.approx(1)
    assert effective_sample_size(np.array([3.0, 1.0])) == pytest.approx(16 / 10)
