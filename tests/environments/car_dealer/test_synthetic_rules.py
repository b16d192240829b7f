"""Dialogues judged by their words alone."""

import pytest

from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.scripted_policies import STRATEGIES, ScriptedPolicy
from boost_trl.environments.synthetic import SyntheticRules


@pytest.mark.parametrize("world", ["full", "small"])
def test_self_play_rules_agree_with_the_game(world):
    """Judged by their words alone, real dialogues (with their last answer) get what the game gave them."""
    env = CarDealer(world=world)
    rules = env.synthetic_rules()
    assert isinstance(rules, SyntheticRules)
    outcomes = []
    for index, task in enumerate(env.tasks()[::16]):
        name = list(STRATEGIES)[index % len(STRATEGIES)]
        seller = ScriptedPolicy(env, name, seed=index)
        messages, rewards, over = [{"role": "user", "content": env.reset(seed=index, task=task)[0]}], [], False
        while not over:
            assert not rules.is_terminal(messages)
            messages.append({"role": "assistant", "content": seller([messages])[0]})
            assert not rules.is_terminal(messages)  # the buyer decides
            observation, reward, over, _, info = env.step(messages[-1]["content"])
            rewards.append(reward)
            messages.append({"role": "user", "content": observation})
        assert rules.is_terminal(messages)
        outcome = rules.rewards_from_text(messages, task)
        assert outcome == (rewards, True, info["score"], info["success"])
        outcomes.append(info["success"])
    assert {True, False} == set(outcomes)


def test_self_play_cannot_sell_below_the_minimum():
    env = CarDealer(world="small", max_utterances=4)
    rules = env.synthetic_rules()
    task = env.tasks(["Lexus"])[0]
    talk = [
        {"role": "user", "content": env.reset(task=task)[0]},
        {"role": "assistant", "content": f"price {task.data['floor'] - 1}"},
        {"role": "user", "content": "deal"},
    ]
    assert rules.rewards_from_text(talk, None) == ([-2.0], True, 0.0, False)
    talk[1]["content"] = f"price {task.data['floor']}"
    assert rules.rewards_from_text(talk, None) == ([0.0], True, 2.0, True)
    cut = rules.rewards_from_text(talk[:2], None)
    assert not cut.terminated and cut.rewards == [-1.0]
    assert "walk away" in rules.environment_prompt(CarDealer().tasks()[0])
