"""Mixes of scripted policies, which the three worlds check alike."""

import pytest

from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.offline_data import offline_trajectories as car_dealer
from boost_trl.environments.policy_mix import check_mix
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories as twenty_questions
from boost_trl.environments.webshop import WebShop, generate_small_catalogue
from boost_trl.environments.webshop import offline_trajectories as webshop


BAD = [
    ({"saint": 1}, 5, r"unknown policies \['saint'\] in `mix`; known: .*expert"),
    ({"expert": -1, "random": 2}, 5, "shares of at least 0"),
    ({"expert": 0}, 5, "not all 0"),
    ({}, 5, "not all 0"),
    ({"expert": 1}, 0, "`n` must be at least 1, got 0"),
]


@pytest.mark.parametrize(("mix", "n", "message"), BAD)
def test_bad_mixes(mix, n, message):
    with pytest.raises(ValueError, match=message):
        check_mix(mix, ["expert", "random"], n)
    check_mix({"expert": 0.2, "random": 0}, ["expert", "random"], 1)


@pytest.mark.parametrize("world", ["twenty_questions", "car_dealer", "webshop"])
def test_every_world_checks_its_mix(world):
    make, env = {
        "twenty_questions": (twenty_questions, TwentyQuestions()),
        "car_dealer": (car_dealer, CarDealer(world="small")),
        "webshop": (webshop, WebShop(generate_small_catalogue(0, 2), observation="compact")),
    }[world]
    for mix, n, message in (BAD[0], BAD[2], BAD[4]):
        with pytest.raises(ValueError, match=message):
            make(env, n, mix=mix)
