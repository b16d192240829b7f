"""Reading and writing of both worlds' texts."""

import random

import pytest

from boost_trl.environments.car_dealer.bargaining import Move
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.language import (
    Phrasing,
    decision_in,
    read_sheet,
    understand,
)


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


def test_the_small_world_has_one_word_for_each():
    assert [decision_in(text, 90, "small") for text in ("deal 90", "nice ; deal", "deal ?", "no deal", "bye")] == [
        "accept",
        "accept",
        None,
        "reject",
        "reject",
    ]
    assert decision_in("deal 88", 90, "small") is None


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
