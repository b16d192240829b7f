import math
import random

import pytest

from boost_trl.metrics import EpisodeScore


def test_mean_and_standard_error():
    # Deviations of 1, 2, 6 from their mean 3 are -2, -1, 3: variance 14/2, standard error sqrt(7/3).
    result = EpisodeScore(keep_in_memory=True).compute(
        scores=[1.0, 2.0, 6.0], successes=[True, False, True], turns=[3, 4, 8]
    )
    assert result == {
        "score_mean": 3.0,
        "score_se": pytest.approx(math.sqrt(7 / 3)),
        "success_rate": pytest.approx(2 / 3),
        "mean_turns": 5.0,
        "num_games": 3,
    }


def test_one_episode_has_no_standard_error():
    result = EpisodeScore(keep_in_memory=True).compute(scores=[1.0], successes=[True], turns=[3])
    assert math.isnan(result["score_se"])


def test_batches_add_up():
    metric = EpisodeScore(keep_in_memory=True)
    random.seed(0)
    scores = [random.random() for _ in range(20)]
    metric.add_batch(scores=scores[:7], successes=[True] * 7, turns=[1] * 7)
    metric.add_batch(scores=scores[7:], successes=[False] * 13, turns=[2] * 13)
    assert metric.compute()["score_mean"] == pytest.approx(sum(scores) / 20)
