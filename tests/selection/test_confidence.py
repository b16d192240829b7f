"""Where trusted rows rank in the pool, against counting every pair, and against chance."""

import numpy as np
import pytest

from boost_trl.selection import weight_confidence


def test_every_pair_counts_and_ties_count_half():
    draw = np.random.default_rng(0)
    trusted, pool = draw.integers(0, 6, 9).astype(float), draw.integers(0, 8, 23).astype(float)
    pairs = [(t < p) + 0.5 * (t == p) for t in trusted for p in pool]
    assert weight_confidence(trusted, pool).auc == pytest.approx(np.mean(pairs))
    assert weight_confidence([1.0], [2.0, 3.0, 1.0, 0.0]).auc == (2 + 0.5) / 4


def test_the_share_of_the_pool_that_ranks_with_the_trusted_rows():
    """400 good rows of 1,000 like the trusted ones: nine tenths of these rank among the lowest .36 of the pool."""
    draw = np.random.default_rng(1)
    pool = np.r_[draw.uniform(0, 1, 400), draw.uniform(2, 3, 600)]
    result = weight_confidence(draw.uniform(0, 1, 2000), pool)
    assert result.auc == pytest.approx(0.5 + 0.6 / 2, abs=0.01)
    assert result.trusted_share == pytest.approx(0.9 * 0.4, abs=0.015)
    mostly_good = weight_confidence(draw.uniform(0, 1, 2000), np.r_[draw.uniform(0, 1, 800), np.full(200, 2.0)])
    assert mostly_good.trusted_share == pytest.approx(0.9 * 0.8, abs=0.02)


@pytest.mark.parametrize("num_trusted", [4, 10, 64])
def test_rows_that_are_all_alike_are_near_chance_in_95_of_100_cases(num_trusted):
    draw = np.random.default_rng(2)
    results = [weight_confidence(draw.normal(size=num_trusted), draw.normal(size=300)) for _ in range(2000)]
    assert np.mean([result.is_near_chance for result in results]) == pytest.approx(0.95, abs=0.02)
    assert np.std([result.auc for result in results]) == pytest.approx(results[0].chance_error, rel=0.06)
    assert np.mean([result.is_against for result in results]) < 0.06


@pytest.mark.parametrize(
    ("shift", "near_chance", "against", "says"),
    [
        (-2.0, False, False, "Trusted rows agree with the weights"),
        (0.0, True, False, "The weights are near chance"),
        (
            0.3,
            True,
            False,
            "The weights are near chance",
        ),  # trusted rows are not known by heart, those of the pool are
        (2.0, True, True, "The weights prefer rows unlike the trusted ones"),
    ],
)
def test_verdicts(shift, near_chance, against, says):
    grid = np.linspace(-1, 1, 41)
    result = weight_confidence(grid[::4] + shift, grid)
    assert (result.is_near_chance, result.is_against) == (near_chance, against)
    assert result.verdict().startswith(says) and f"{result.auc:.0%} of the pool" in result.verdict()


def test_bad_losses():
    with pytest.raises(ValueError, match="got 0 trusted losses and 2"):
        weight_confidence([], [1.0, 2.0])
    with pytest.raises(ValueError, match="not a number"):
        weight_confidence([1.0], [1.0, float("nan")])
