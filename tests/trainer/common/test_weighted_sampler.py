"""Rows drawn by weight."""

import numpy as np
import pytest

from boost_trl.trainer.common.weighted_sampler import WeightedSampler, systematic_draws


def test_rows_come_as_often_as_their_weights_say_up_to_one():
    weights = np.random.default_rng(0).exponential(size=60)
    weights[7] = weights[59] = 0
    expected = 60 * weights / weights.sum()
    counts = np.array(
        [np.bincount(systematic_draws(weights, 60, np.random.default_rng(s)), minlength=60) for s in range(400)]
    )
    assert (counts >= np.floor(expected)).all() and (counts <= np.ceil(expected)).all()
    assert counts.mean(0) == pytest.approx(expected, abs=5 * 0.5 / 400**0.5)


def test_equal_weights_give_every_row_once():
    assert sorted(systematic_draws(np.full(13, 0.3), 13, np.random.default_rng(0))) == list(range(13))


def test_one_row_can_have_all():
    assert systematic_draws(np.array([0.0, 2.0, 0.0]), 5, np.random.default_rng(0)).tolist() == [1] * 5


def test_an_epoch_depends_on_its_number_and_the_seed_alone():
    def epoch(number, seed=3):
        sampler = WeightedSampler(lambda: np.arange(1.0, 21), 20, seed)
        sampler.set_epoch(number)
        return list(sampler)

    assert epoch(0) == epoch(0) and len(epoch(0)) == 20
    assert epoch(0) != epoch(1) and epoch(0) != epoch(0, seed=4)


def test_weights_are_asked_as_an_epoch_begins():
    weights = np.array([1.0, 0.0])
    sampler = WeightedSampler(lambda: weights, 2, 0)
    assert list(sampler) == [0, 0]
    weights[:] = [0, 1]
    assert list(sampler) == [1, 1]
