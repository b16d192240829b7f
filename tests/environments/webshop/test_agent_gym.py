"""AgentGym's server."""

import copy
import random
import re

import pytest

from boost_trl.environments.base import Environment
from boost_trl.environments.webshop import WebShop, WebShopAgentGym

from .servers import answering


@pytest.mark.parametrize("answer", ["<html>", "[]", "{}", '"x"', "null", '[5, "x"]', '{"error": "no such game"}'])
def test_another_server_than_agent_gyms(answer):
    with answering(answer.encode()) as url:
        shop = WebShopAgentGym(url)
        with pytest.raises(
            ValueError, match="create does not speak AgentGym's protocol: it answers " + re.escape(repr(answer))
        ):
            shop.reset(seed=0)
        shop._number = 1
        with pytest.raises(ValueError, match="reset does not speak AgentGym's protocol"):
            shop.reset(seed=0)


@pytest.mark.parametrize("answer", ['{"state": 5, "reward": 0, "done": false}', '{"state": ""}', '["", 0, false]'])
def test_agent_gyms_server_answers_a_step_with_something_else(agent_gym, answer):
    shop = WebShopAgentGym(agent_gym.url)
    shop.reset(task="fixed_0")
    with answering(answer.encode()) as url:
        shop.base_url = url + "/"
        with pytest.raises(ValueError, match="step does not speak AgentGym's protocol"):
            shop.step("search[hat]")


def test_agent_gym_plays_as_the_embedded_shop(agent_gym, odd_catalogue):
    ours = WebShop(odd_catalogue, observation="text", max_steps=10)
    theirs = WebShopAgentGym(agent_gym.url, num_goals=len(odd_catalogue.goals), max_steps=10)
    assert isinstance(theirs, Environment)
    endings = set()
    for number in range(10):
        rng = random.Random(number)
        observed, _ = ours.reset(task=ours.tasks()[number])
        answered, _ = theirs.reset(task=f"fixed_{number}")
        over = False
        while not over:
            assert answered == observed
            assert theirs.admissible_actions() == ours.admissible_actions()
            action = rng.choice(ours.admissible_actions()).replace("<words>", "easy clean soap")
            observed, *outcome, info = ours.step(action)
            answered, *answered_outcome, answered_info = theirs.step(action)
            assert answered_outcome == outcome
            assert (answered_info.get("score"), answered_info["valid"]) == (info.get("score"), True)
            over = any(outcome[1:])
        assert answered == observed
        endings.add(outcome[1])
    assert endings == {True, False}


def test_agent_gym_games_are_apart(agent_gym):
    one = WebShopAgentGym(agent_gym.url, num_goals=3)
    one.reset(seed=0)
    other = copy.deepcopy(one)
    other.reset(seed=1)
    other.step("search[easy clean]")
    assert one.admissible_actions() == ["search[<words>]"]
    assert len(agent_gym.games) == 2
    one.close()
    other.close()
    assert not agent_gym.games
