"""The negotiation's rules, worked by hand on buyers whose hidden numbers are known."""

import copy

import pytest

from boost_trl.environments.base import Environment, Task
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.market import BRANDS, SEGMENT_OF, SEGMENTS


def small_task(brand, wanted, floor, reservation, patience, budget=100):
    data = {
        "brand": brand,
        "model": "sedan",
        "personality": "sarcastic",  # neutral: no patience, no drift
        "wanted": wanted,
        "equipment": ["mileage"],
        "sticker": 100,
        "floor": floor,
        "budget": budget,
        "reservation": reservation,
        "patience": patience,
    }
    return Task("hand", brand, data=data)


def play(env, task, actions):
    env.reset(seed=0, task=task)
    return [env.step(action) for action in actions]


HONDA = small_task("Honda", ["cargo"], floor=86, reservation=80, patience=5)
BMW = small_task("BMW", ["leather"], floor=90, reservation=84, patience=4)
AUDI = small_task("Audi", ["leather", "audio"], floor=88, reservation=82, patience=3)


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


def test_the_turn_limit_is_a_failure_that_terminates():
    steps = play(CarDealer(world="small", max_utterances=4), HONDA, ["price 98", "price 95"])
    assert steps[-1][2:4] == (True, False) and steps[-1][4]["decision"] == "limit"
    assert sum(step[1] for step in steps) == -2 and steps[-1][4]["score"] == 0


def test_full_world_speaks_dollars():
    data = {**HONDA.data, "sticker": 40_000, "floor": 34_400, "reservation": 32_000, "budget": 40_000}
    env = CarDealer()
    observation, _ = env.reset(seed=1, task=Task("hand", "Honda", data=data))
    assert "sticker price $40,000" in observation and "minimum price $34,400" in observation
    observation, *_ = env.step("What do you want? It could be $41,000, no, $39,200.")
    assert "cargo" in observation and "$31,200" in observation  # 32,000 less 2 % of 40,000
    *_, info = env.step("I can do $38k.")
    assert info["valid"]
    *_, terminated, _, info = env.step("Deal.")  # 32,000 + 3 % - 2 %: below the minimum
    assert info["void"] == "below_floor" and not terminated


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


def test_protocol_and_determinism():
    env = CarDealer()
    assert isinstance(env, Environment)
    assert {task.category for task in env.tasks()} == set(BRANDS) and len(BRANDS) == 13 == len(SEGMENT_OF)
    assert len({task.id for task in env.tasks()}) == len(env.tasks()) == 13 * 64
    assert [task.category for task in env.tasks(["Tesla"])] == ["Tesla"] * 64

    def transcript(environment, **kwargs):
        texts = [environment.reset(**kwargs)[0]]
        return texts + [environment.step(f"It is yours for ${price},000.")[0] for price in (1, 2)]

    assert transcript(env, seed=5) == transcript(CarDealer(), seed=5)
    assert transcript(env, seed=5, task="bmw-0001") != transcript(env, seed=6, task="bmw-0001")


def test_a_copy_goes_on_alone_and_shares_the_chat_model():
    chat = lambda conversations: ["Hm."]  # noqa: E731
    env = CarDealer(buyer=chat)
    env.reset(seed=0)
    clone = copy.deepcopy(env)
    clone.step("Hello.")
    assert env.step("Hello.")[4]["step"] == 1
    assert clone._chat is chat


def test_bad_use():
    for options in (
        {"reward": "points"},
        {"world": "tiny"},
        {"max_utterances": 7},
        {"max_utterances": 2.0},
        {"buyers_per_brand": 2.5},
        {"buyers_per_brand": 0},
        {"world": "small", "reward": "revenue"},
    ):
        with pytest.raises(ValueError, match=next(iter(options))):
            CarDealer(**options)
    with pytest.raises(ValueError, match="GenerationPolicy"):
        CarDealer(buyer="gpt")
    env = CarDealer(world="small")
    with pytest.raises(RuntimeError):
        env.step("price 90")
    with pytest.raises(ValueError, match="fiat-0000"):
        env.reset(task="fiat-0000")
    with pytest.raises(ValueError, match="Fiat"):
        env.tasks(["Fiat"])
    with pytest.raises(ValueError, match="other world"):
        env.reset(task=CarDealer().tasks()[0])
    with pytest.raises(ValueError, match="budget"):
        env.reset(task=Task("x", "BMW", data={"brand": "BMW"}))
    env.reset(seed=0)
    assert env.step("  ")[4]["valid"] is False  # an empty utterance is a lost turn, no exception
    env.step("price 0")
    while not env._over:
        env.step("price 0")
    with pytest.raises(RuntimeError):
        env.step("price 90")


def test_an_unclear_price_is_no_offer_and_costs_a_round():
    env = CarDealer()
    data = {**HONDA.data, "sticker": 40_000, "floor": 34_400, "reservation": 39_000, "budget": 40_000}
    steps = play(env, Task("hand", "Honda", data=data), ["$39.000"] * 6)
    assert [step[2] for step in steps] == [False] * 5 + [True]  # patience 5
    assert all(step[4]["void"] == "unclear_price" and not step[4]["valid"] for step in steps)
    steps = play(CarDealer(world="small"), HONDA, ["price 9600"])
    assert steps[0][0] == "price ?" and steps[0][4]["void"] == "unclear_price"


def test_what_is_no_text_is_an_invalid_action():
    for env in (CarDealer(), CarDealer(world="small"), CarDealer(buyer=lambda conversations: ["Hm."])):
        env.reset(seed=0)
        assert env.step(None)[4]["valid"] is False
        assert env.step(7)[4]["step"] == 2


def test_a_refused_reset_leaves_the_game_alone():
    env = CarDealer(world="small")
    env.reset(seed=0, task=AUDI)
    for wrong in (CarDealer().tasks(["BMW"])[0], Task("x", "BMW", data={"brand": "BMW"}), "fiat-0000"):
        with pytest.raises(ValueError):
            env.reset(task=wrong)
    assert env.step("want ?")[0] == "want leather audio ; price ?"
    assert env.step("has leather audio ; price 96")[4]["category"] == "Audi"


@pytest.mark.parametrize("task", [5, AUDI.to_dict()])
def test_what_is_no_task_is_refused_by_name(task):
    with pytest.raises(ValueError, match="`Task`.*or its id"):
        CarDealer(world="small").reset(task=task)
