import math

import numpy as np
import pytest

from boost_trl.analysis import correlation, distance_to_nearest
from boost_trl.analysis.neighbour_distance import pearson


def test_distance_is_the_mean_l1_distance_to_the_nearest():
    reference = np.array([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]])
    # From (1, 0): 1, 1 and 9.
    np.testing.assert_allclose(distance_to_nearest(np.array([[1.0, 0.0]]), reference, k=2), [1.0])
    np.testing.assert_allclose(distance_to_nearest(np.array([[1.0, 0.0]]), reference, k=10), [11 / 3], rtol=1e-6)
    assert distance_to_nearest(np.empty((0, 2)), reference).shape == (0,)
    with pytest.raises(ValueError, match="no reference point"):
        distance_to_nearest(reference, np.empty((0, 2)))


def test_distance_by_blocks_equals_brute_force(monkeypatch):
    monkeypatch.setattr("boost_trl.analysis.neighbour_distance._BLOCK_BYTES", 4 * 50 * 7)  # 7 rows at a time
    rng = np.random.default_rng(0)
    points, reference = rng.normal(size=(40, 9)), rng.normal(size=(50, 9))
    brute = np.sort(np.abs(points[:, None] - reference).sum(-1), axis=1)[:, :10].mean(axis=1)
    np.testing.assert_allclose(distance_to_nearest(points, reference), brute, rtol=1e-5)


def test_pearson_is_none_where_it_is_undefined():
    assert pearson([1, 2, 3], [2, 4, 7]) == pytest.approx(np.corrcoef([1, 2, 3], [2, 4, 7])[0, 1])
    assert pearson([1, 1, 1], [1, 2, 3]) is None and pearson([1], [2]) is None
    assert correlation(np.arange(3), np.arange(3)) is None and correlation(np.ones(9), np.arange(9)) is None


def test_interval_holds_the_true_correlation_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered, truth = 0, 0.5
    for _ in range(400):
        x, noise = rng.normal(size=(2, 60))
        found = correlation(x, truth * x + math.sqrt(1 - truth**2) * noise)
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 400 <= 0.98
    assert correlation(np.arange(5), 2.0 * np.arange(5)).r == pytest.approx(1)


def test_a_correlation_of_two_clusters_is_told_from_a_trend():
    rng = np.random.default_rng(3)
    for size, strength in ((2000, -0.4), (2000, 0.1), (200, 0.9)):
        x, noise = rng.normal(size=(2, size))
        trend = correlation(x, strength * x + noise)
        assert trend.r * strength > 0 and not trend.is_uneven
        assert trend.near.points + trend.far.points == size and trend.near.near is None
    place = np.where(np.arange(2000) < 400, 0.0, 6.0)  # a fifth of the rows lies near, and low
    x, noise = rng.normal(size=(2, 2000))
    clusters = correlation(place + x, place + 2 * noise)
    assert clusters.r > 0.5 and clusters.is_uneven and abs(clusters.far.r) < 0.1
    rises_and_falls = correlation(np.abs(x), -np.abs(np.abs(x) - 1.2) + 0.1 * noise)
    assert rises_and_falls.is_uneven and rises_and_falls.near.r > 0.5 > 0 > rises_and_falls.far.r


def test_false_alarms_are_rare():
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(300):
        x, noise = rng.normal(size=(2, 300))
        alarms += correlation(x, 0.3 * x + noise).is_uneven
    assert alarms / 300 < 0.05
