"""Rewards in all units, worked by hand."""

import pytest

from boost_trl.environments.base import Task
from boost_trl.environments.car_dealer.environment import CarDealer

from .buyers import AUDI, HONDA, play, small_task


def test_rewards_in_all_units():
    actions = ["want ?", "has leather audio ; price 96", "deal"]
    score = play(CarDealer(world="small", reward="score"), AUDI, actions)
    assert [step[1] for step in score] == [0, 0, 44]
    fancy = play(
        CarDealer(world="small", reward="fancy"), small_task("Audi", ["leather", "audio"], 88, 82, 3, 110), actions
    )
    assert fancy[-1][1] == pytest.approx(90 / 105)
    rejected = play(
        CarDealer(world="small", reward="fancy"), small_task("Audi", ["leather"], 88, 82, 1, 110), ["price 1"] * 2
    )
    assert rejected[-1][1] == pytest.approx(-0.10)
    data = {**HONDA.data, "sticker": 40_000, "floor": 34_400, "reservation": 39_000, "budget": 40_000}
    revenue = play(CarDealer(reward="revenue"), Task("hand", "Honda", data=data), ["$40,000", "$38,000"])
    assert [step[1] for step in revenue] == [0, 38.0]
