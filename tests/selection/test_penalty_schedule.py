import math

import pytest

from boost_trl.selection import PenaltySchedule


def test_papers_schedule():
    schedule = PenaltySchedule(num_epochs=3)
    for epoch, gamma in [(0, 1 / 9), (0.99, 1 / 9), (0.99999999, 1 / 4), (1, 1 / 4), (2.5, 3 / 7), (3.0, 3 / 7)]:
        assert schedule.gamma(epoch) == pytest.approx(gamma)
        assert schedule.coefficients(epoch) == pytest.approx((1, gamma))


def test_normalized_terms_sum_to_one():
    schedule = PenaltySchedule(num_epochs=3, rho_init=0.2, normalize=True)
    gamma = schedule.gamma(1.0)
    assert schedule.coefficients(1.0) == pytest.approx((1 / (1 + gamma), gamma / (1 + gamma)))


def test_mixing_keeps_rho_and_takes_both_ends():
    assert PenaltySchedule(num_epochs=30, rho_init=0.5, mixing=True).coefficients(29) == (0.5, 0.5)
    assert PenaltySchedule(num_epochs=3, rho_init=0.0, mixing=True).coefficients(0) == (1, 0)
    everything = PenaltySchedule(num_epochs=3, rho_init=1.0, mixing=True)
    assert everything.coefficients(2) == (0, 1) and everything.gamma(0) == math.inf


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"num_epochs": 10}, "reaches ρ = 1 in epoch 10"),
        ({"num_epochs": 9.2}, "epoch 10"),
        ({"num_epochs": 3, "rho_init": 1.0}, "`rho_init`"),
        ({"num_epochs": 3, "rho_init": -0.1}, "`rho_init`"),
        ({"num_epochs": 3, "rho_init": 0.1, "rho_increment": -0.1}, "negative"),
        ({"num_epochs": 3, "rho_init": 1.1, "mixing": True}, r"\[0, 1\]"),
        ({"num_epochs": 0}, "`num_epochs`"),
        ({"num_epochs": 3, "rho_increment": math.nan}, "`rho_increment`"),
    ],
)
def test_what_leaves_the_range_is_refused_before_training(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PenaltySchedule(**kwargs)


def test_nine_epochs_are_allowed():
    assert PenaltySchedule(num_epochs=9).rho(8) == pytest.approx(0.9)
