"""Reading and writing of both worlds' texts."""

import random

import pytest

from boost_trl.environments.car_dealer.bargaining import Move
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.language import (
    Phrasing,
    decision_in,
    prices_in,
    read_sheet,
    small_vocabulary,
    understand,
)
from boost_trl.environments.car_dealer.phrases import BUYER, PERSONALITY, SELLER


@pytest.mark.parametrize(
    "text, prices",
    [
        ("It is $45,000.", [45_000]),
        ("From $52,500 down to $49k!", [52_500, 49_000]),
        ("$12.5k or $ 900", [12_500, 900]),
        ("45,000 miles, 3 owners", []),
        ("$1999.99", [2000]),
    ],
)
def test_prices_in_dollars(text, prices):
    assert prices_in(text, "full") == prices


def test_understand():
    assert understand("This BMW has leather and a turbo. Last price: $80,000? No, $79,500.", "full") == Move(
        price=79_500, brands=("BMW",), features=("leather", "turbo")
    )
    assert understand("A Mercedes? What do you need?", "full") == Move(brands=("Mercedes-Benz",), asks=True)
    assert understand("Agreed, it is yours.", "full") == Move(takes_counter=True)
    for refusal in ("No deal.", "That is not a deal.", "I can't accept.", "I can\u2019t accept."):
        assert understand(refusal, "full") == Move()
    assert understand("Deal at $40,000.", "full") == Move(price=40_000)
    assert understand("tesla ; has battery ; price 94", "small") == Move(94, ("Tesla",), ("battery",))


@pytest.mark.parametrize("world, price", [("full", 41_300), ("small", 94)])
def test_every_wording_is_understood_as_meant(world, price):
    moves = [
        Move(price=price),
        Move(brands=("Volkswagen",)),
        Move(features=("turbo",)),
        Move(features=("camera", "cargo", "safety"), price=price),
        Move(asks=True),
        Move(brands=("Mercedes-Benz",), features=("audio",), asks=True, price=price),
        Move(takes_counter=True),
        Move(),
    ]
    for seed in range(40):
        phrasing = Phrasing(world, random.Random(seed))
        for move in moves:
            text = phrasing.utterance(move, small_talk=not move.takes_counter)
            assert understand(text, world) == move, text


def test_only_the_deciding_phrases_decide():
    for act, phrases in BUYER.items():
        for phrase in phrases:
            text = phrase.format(brand="BMW", model="SUV", price="$40,000", features="audio")
            for colour in ("", *(lead for leads in PERSONALITY.values() for lead in leads)):
                decision = decision_in(f"{colour} {text}", 40_000, "full")
                assert decision == {"accept": "accept", "leave": "reject"}.get(act), text


def test_decisions_in_free_words():
    assert decision_in("Deal, but for $38,000.", 40_000, "full") is None
    assert decision_in("I accept $40,000.", 40_000, "full") == "accept"
    assert decision_in("It's a deal!", None, "full") is None
    assert decision_in("That's no deal, goodbye.", 40_000, "full") == "reject"


def test_about_ten_wordings_of_every_act():
    assert all(len(set(phrases)) == 10 for table in (BUYER, SELLER) for phrases in table.values())


@pytest.mark.parametrize("world", ["full", "small"])
def test_the_first_observation_tells_brand_sticker_and_minimum_only(world):
    env = CarDealer(world=world)
    for task in env.tasks()[::7]:
        text, _ = env.reset(seed=0, task=task)
        sheet = read_sheet(text, world)
        assert (sheet.brand, sheet.sticker, sheet.floor) == tuple(task.data[k] for k in ("brand", "sticker", "floor"))
        if world == "full":
            hidden = {f"${task.data[key]:,}" for key in ("budget", "reservation")}
            assert not hidden - {f"${sheet.sticker:,}", f"${sheet.floor:,}"} & set(text.replace(".", " ").split())


def test_read_sheet_of_another_world():
    with pytest.raises(ValueError, match="dealer sheet"):
        read_sheet("Hello.", "full")


def test_small_vocabulary_covers_a_whole_world():
    from boost_trl.environments.car_dealer.data import offline_dialogues

    words = set(small_vocabulary())
    assert len(words) < 130
    env = CarDealer(world="small")
    for row in offline_dialogues(env, n=300, seed=3, slips=0.3):
        for message in row["messages"]:
            assert set(message["content"].split()) <= words, message
