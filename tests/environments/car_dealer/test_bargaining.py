"""The negotiation's rules, worked by hand on buyers whose hidden numbers are known."""

import pytest

from boost_trl.environments.base import Task
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.market import SEGMENTS

from .buyers import AUDI, BMW, HONDA, play, small_task


def test_mainstream_buyers_meet_small_concessions():
    # 80; then +3 for every concession of at most 4: 83, 86, 89. Counter-offers stay 2 below.
    steps = play(CarDealer(world="small"), HONDA, ["price 98", "price 95", "price 92", "price 89"])
    assert [step[0] for step in steps] == ["no 78", "nice ; no 81", "nice ; no 84", "deal 89"]
    assert [step[1] for step in steps] == [-1, -1, -1, 0]
    assert [step[2] for step in steps] == [False, False, False, True]
    info = steps[-1][4]
    assert info["success"] and info["score"] == 50 - 2 * 4 and info["price"] == 89 and info["price_ratio"] == 0.89


def test_mainstream_buyers_smell_room_behind_a_big_discount():
    # 80 - 3 = 77: the counter-offer falls from 78 to 75.
    steps = play(CarDealer(world="small"), HONDA, ["price 98", "price 92"])
    assert [step[0] for step in steps] == ["no 78", "hmm ; no 75"]


def test_luxury_buyers_pay_a_firm_price_and_despise_discounts():
    env = CarDealer(world="small")
    # Held three times: 84, 89, 94, 99 >= 97.
    firm = play(env, BMW, ["price 97"] * 4)
    assert firm[-1][0] == "deal 97" and firm[-1][4]["score"] == 42
    # Patience 4: 3 after the first offer, 1 after the first discount, below zero after the second.
    weak = play(env, BMW, ["price 97", "price 94", "price 91"])
    assert weak[-1][0] == "bye" and weak[-1][2] and weak[-1][4]["decision"] == "reject"
    # The failure pays all remaining steps at once.
    assert [step[1] for step in weak] == [-1, -1, -23]


def test_premium_buyers_pay_for_what_they_asked_for():
    # 82 + 2 * 5 = 92, but nobody pays more than .97 of the first price (93.1): the counter-offer is 90.
    steps = play(CarDealer(world="small"), AUDI, ["want ?", "has leather audio ; price 96", "deal"])
    assert steps[0][0] == "want leather audio ; price ?"
    assert steps[1][0] == "nice ; no 90"
    assert steps[2][0] == "deal 90" and steps[2][4]["score"] == 44


def test_listing_every_feature_is_no_strategy():
    # 4 features that the buyer does not want cost 4 rounds of a patience of 3.
    steps = play(CarDealer(world="small"), AUDI, ["has leather audio turbo camera cargo safety ; price 95"])
    assert steps[0][0] == "bye" and steps[0][1] == -25


def test_other_makes_cost_patience():
    env = CarDealer(world="small")
    steps = play(env, AUDI, ["lexus", "lexus"])  # 2 each: another make, and no price
    assert steps[0][0] == "not that ; price ?" and steps[1][0] == "bye"


@pytest.mark.parametrize("price, reply, reason", [(85, "joke", "below_floor"), (101, "high", "above_sticker")])
def test_void_offers_never_sell_and_cost_a_round(price, reply, reason):
    env = CarDealer(world="small")
    steps = play(env, HONDA, [f"price {price}"] * 6)
    assert [step[0] for step in steps] == [reply] * 5 + ["bye"]  # patience 5
    assert all(not step[4]["valid"] and step[4]["void"] == reason for step in steps)


def test_a_counter_offer_below_the_floor_cannot_be_taken():
    steps = play(CarDealer(world="small"), HONDA, ["price 98", "deal", "price 95"])
    assert steps[1][0] == "joke" and steps[1][4]["void"] == "below_floor" and not steps[1][2]


def test_nothing_to_take_before_the_first_counter_offer():
    steps = play(CarDealer(world="small"), HONDA, ["deal"])
    assert steps[0][4]["void"] == "nothing_to_take"


@pytest.mark.parametrize("brand", [segment.brands[0] for segment in SEGMENTS])
def test_opening_at_the_floor_never_sells_at_once(brand):
    env = CarDealer(world="small")
    for task in env.tasks([brand]):
        floor = task.data["floor"]
        wishes = " ".join(task.data["wanted"])
        env.reset(seed=0, task=task)
        assert not env.step(f"{brand.lower()} ; has {wishes} ; price {floor}")[4].get("success")


def test_the_budget_is_a_limit():
    poor = small_task("BMW", ["leather"], floor=80, reservation=84, patience=9, budget=90)
    steps = play(CarDealer(world="small"), poor, ["price 97"] * 10)
    assert not steps[-1][4]["success"]


def test_an_unclear_price_is_no_offer_and_costs_a_round():
    env = CarDealer()
    data = {**HONDA.data, "sticker": 40_000, "floor": 34_400, "reservation": 39_000, "budget": 40_000}
    steps = play(env, Task("hand", "Honda", data=data), ["$39.000"] * 6)
    assert [step[2] for step in steps] == [False] * 5 + [True]  # patience 5
    assert all(step[4]["void"] == "unclear_price" and not step[4]["valid"] for step in steps)
    steps = play(CarDealer(world="small"), HONDA, ["price 9600"])
    assert steps[0][0] == "price ?" and steps[0][4]["void"] == "unclear_price"
