"""The protocol, options and errors of Car Dealer."""

import copy

import pytest

from boost_trl.environments.base import Environment, Task
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.market import BRANDS, SEGMENT_OF

from .buyers import AUDI, HONDA, play


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
