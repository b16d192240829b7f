"""Scripted policies by hand, and as policies of `rollout`."""

import random

import pytest

from boost_trl.environments.car_dealer.bargaining import Move
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.market import SEGMENT_OF
from boost_trl.environments.car_dealer.scripted_policies import (
    Beliefs,
    ScriptedPolicy,
    anchor_high_slow,
    feature_matcher,
    quick_discounter,
    stubborn,
)
from boost_trl.environments.rollout import rollout


ENV = CarDealer(world="small")


def talk(*texts):
    return [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * len(texts), texts)]


def test_beliefs_are_read_off_the_conversation():
    said = talk(
        "premium audi ; minimum 88 ; want leather", "want ? ; price 97", "want leather safety ; no 86",
        "has leather ; price 94", "nice ; no 89",
    )  # fmt: skip
    beliefs = Beliefs.of(said, "small", SEGMENT_OF)
    assert (beliefs.sheet.brand, beliefs.sheet.floor, beliefs.turn, beliefs.segment) == ("Audi", 88, 2, "premium")
    assert (beliefs.price, beliefs.counter, beliefs.wishes, beliefs.asked) == (94, 89, ("safety",), True)
    assert beliefs.takes == Move(takes_counter=True)  # 89 is allowed, 86 was not
    assert Beliefs.of(said[:3], "small", SEGMENT_OF).takes is None
    assert beliefs.percent(60) == 88 and beliefs.percent(120) == 100 and beliefs.lower(3) == 91


def test_moves_of_the_one_trick_policies():
    rng = random.Random(0)
    start = Beliefs.of(talk("mainstream honda ; minimum 86 ; want cargo"), "small", SEGMENT_OF)
    later = Beliefs.of(talk("mainstream honda ; minimum 86 ; want cargo", "price 98", "no 87"), "small", SEGMENT_OF)
    assert anchor_high_slow(start, rng).price in (98, 100) and anchor_high_slow(later, rng).price in (95, 96)
    assert quick_discounter(later, rng) == Move(takes_counter=True)
    assert feature_matcher(start, rng).asks and feature_matcher(start, rng).price is None
    assert stubborn(later, rng) == Move(price=98)


def test_the_expert_sells_in_rollout():
    rows = rollout(ScriptedPolicy(ENV), ENV, ENV.tasks(["Porsche"])[:4], progress=False)
    assert all(row["success"] and row["error"] is None for row in rows)


def test_equal_conversations_get_equal_replies_and_slips_are_noise():
    openings = [talk(ENV.reset(task=task)[0]) for task in ENV.tasks()[::40]]
    replies = ScriptedPolicy(ENV, "stubborn", seed=1)(openings)
    assert ScriptedPolicy(ENV, "stubborn", seed=1)(openings[::-1]) == replies[::-1]
    assert all(reply in ("price 96", "price 97", "price 98") for reply in replies)
    slipped = ScriptedPolicy(ENV, "stubborn", seed=1, slips=1.0)(openings)
    assert sum(reply in ("price 96", "price 97", "price 98") for reply in slipped) < len(slipped) / 4


def test_bad_arguments():
    with pytest.raises(ValueError, match="no scripted policy is called 'saint'; there are expert"):
        ScriptedPolicy(ENV, "saint")
    with pytest.raises(ValueError, match="`slips` is a probability"):
        ScriptedPolicy(ENV, slips=2)
