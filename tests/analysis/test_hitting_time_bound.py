import math

import numpy as np
import pytest

from boost_trl.analysis import estimate_task_shift, gaussian_kl, pac_bayes_bound
from boost_trl.analysis.hitting_time_bound import complexity_constant, hitting_times_of


def exact_complexity(c, kl, delta, n_eff, horizon):
    """The formula of [B] Theorem B.3, written out once more."""
    epsilon = math.log(2) / (2 * math.log(c)) * (1 + math.log(1 + kl / math.log(2 / delta)))
    return horizon * (1 + c) / (2 * math.sqrt(2)) * math.sqrt((kl + math.log(2 / delta) + epsilon) / n_eff)


def test_a_case_by_hand():
    """Weights 3/4, 1/4: n_eff = 1/(9/16 + 1/16) = 8/5. At KL = 0, δ = 2/e and c = e: ln(2/δ) = 1, ε = ln 2 / 2."""
    bound = pac_bayes_bound([2, 10], [3, 1], horizon=10, kl=0.0, delta=2 / math.e, c=math.e, task_shift=0.5)
    assert bound.hitting_time == pytest.approx(4) and bound.effective_sample_size == pytest.approx(1.6)
    assert bound.epsilon_c == pytest.approx(math.log(2) / 2)
    complexity = 10 * (1 + math.e) / math.sqrt(8) * math.sqrt((1 + math.log(2) / 2) / 1.6)
    assert bound.complexity == pytest.approx(complexity)
    assert bound.bound == pytest.approx(4 + complexity + 0.5) and bound.is_vacuous
    assert bound.bound_constant == pytest.approx(4 + bound.c1 * 10 * math.sqrt(1 / 1.6) + 0.5)


@pytest.mark.parametrize("kl", [0.0, 0.3, 5.0, 1e3, 1e7])
@pytest.mark.parametrize("delta", [0.5, 0.05, 1e-6])
def test_best_c_is_that_of_a_grid(kl, delta):
    times, weights = np.arange(8.0), np.ones(8)
    bound = pac_bayes_bound(times, weights, horizon=10, kl=kl, delta=delta)
    grid = np.exp(np.geomspace(1e-6, 1, 20001))
    values = [exact_complexity(c, kl, delta, 8, 10) for c in grid]
    assert bound.complexity == pytest.approx(min(values), rel=1e-6) and bound.complexity <= min(values) * (1 + 1e-12)
    assert 1 < bound.c <= math.e
    given = pac_bayes_bound(times, weights, horizon=10, kl=kl, delta=delta, c=2.0)
    assert given.complexity == pytest.approx(exact_complexity(2.0, kl, delta, 8, 10))


def test_the_constant_is_its_own_minimum_and_bounds_the_exact_form():
    grid = np.exp(np.linspace(1e-4, 1, 200001))
    brute = ((1 + grid) / (2 * math.sqrt(2)) * np.sqrt(1 + 1 / (2 * np.log(grid)))).min()
    assert complexity_constant() == pytest.approx(brute, rel=1e-9) and complexity_constant() == pytest.approx(
        1.32, abs=0.005
    )
    rng = np.random.default_rng(0)
    for _ in range(200):
        kl, delta = 10 ** rng.uniform(-3, 6), 10 ** rng.uniform(-6, -0.01)
        bound = pac_bayes_bound([1.0], [1.0], horizon=1, kl=kl, delta=delta)
        assert bound.complexity <= bound.complexity_constant * (1 + 1e-12)


def test_the_bound_holds_in_a_world_that_is_known():
    """Two-armed tasks, a prior on four policies and the Gibbs posterior of the weighted rows: the share of draws in which the true
    mean exceeds the bound is at most δ."""
    rng = np.random.default_rng(1)
    means = np.array([2.0, 4.0, 6.0, 8.0])  # of the hitting times, 10 or 0, of each policy
    weights = rng.dirichlet(np.ones(60))
    failures = 0
    for _ in range(500):
        times = 10.0 * (rng.random((60, 4)) < means / 10)
        empirical = weights @ times
        posterior = np.exp(-(empirical - empirical.min()))
        posterior /= posterior.sum()
        kl = float((posterior * np.log(np.maximum(posterior, 1e-300) * 4)).sum())
        bound = pac_bayes_bound(times @ posterior, weights, horizon=10, kl=max(kl, 0.0), delta=0.2, c=1.5)
        failures += posterior @ means > bound.bound
    assert failures <= 0.2 * 500


def test_kl_of_gaussians_is_the_integral():
    grid = np.linspace(-12, 12, 400001)
    sigma, delta = 0.7, 1.3
    p, q = (np.exp(-((grid - mean) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)) for mean in (0.0, delta))
    inside = q > 1e-300
    integral = np.trapezoid(q[inside] * (np.log(q[inside]) - np.log(np.maximum(p[inside], 1e-300))), grid[inside])
    assert gaussian_kl(delta**2, sigma) == pytest.approx(integral, rel=1e-6)


def test_hitting_times_are_minus_the_returns():
    np.testing.assert_array_equal(hitting_times_of([-3.0, 0.0, -20.0], 20), [3, 0, 20])
    for returns in ([0.5], [-21.0]):
        with pytest.raises(ValueError, match="rewards of −1 per step"):
            hitting_times_of(returns, 20)


def test_task_shift_is_the_difference_of_means():
    assert estimate_task_shift([2, 10], [3, 1], [5, 7]) == pytest.approx(2)
    with pytest.raises(ValueError, match="held-out"):
        estimate_task_shift([1], [1], [])
    assert pac_bayes_bound([1.0], [1.0], horizon=2, kl=1.0).task_shift is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kl": -1}, "`kl`"),
        ({"kl": math.nan}, "`kl`"),
        ({"delta": 1}, "`delta`"),
        ({"c": 1.0}, "`c`"),
        ({"c": 3.0}, "`c`"),
        ({"horizon": 1}, "`hitting_times`"),
        ({"task_shift": -0.1}, "`task_shift`"),
        ({"weights": [1]}, "same rows"),
        ({"weights": [0, 0]}, "`weights`"),
        ({"weights": [1, -1]}, "`weights`"),
    ],
)
def test_what_is_out_of_range_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        pac_bayes_bound(**{"hitting_times": [1, 2], "weights": [1, 1], "horizon": 2, "kl": 1.0} | change)
    for arguments in ((-1, 1), (1, 0), (1, math.nan), (math.inf, 1)):
        with pytest.raises(ValueError):
            gaussian_kl(*arguments)


def test_a_kl_beyond_all_measure_gives_a_large_bound_or_an_error():
    bound = pac_bayes_bound([1.0], [1.0], horizon=5.0, kl=1e40)
    assert 1e19 < bound.bound <= bound.bound_constant * (1 + 1e-9) < 1e22
    assert gaussian_kl(1.0, 1e200) == 0
    with pytest.raises(ValueError, match="`kl` must be finite"):
        pac_bayes_bound([1.0], [1.0], horizon=5.0, kl=gaussian_kl(1.0, 1e-200))
