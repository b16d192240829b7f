import numpy as np
import pytest

from boost_trl import validate_trajectories
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories
from boost_trl.environments.twenty_questions.turn_noise import add_bot_turns


ENV = TwentyQuestions()
CLEAN = offline_trajectories(ENV, 200, seed=0, categories=ENV.world.categories[:6])


def test_the_bot_takes_its_share_of_the_turns_and_repeats_one_guess():
    pool = add_bot_turns(CLEAN, ENV, share=0.5, seed=3)
    validate_trajectories(pool)
    assert len(pool) == 200 and pool["task"] == CLEAN["task"] and pool["policy"] == CLEAN["policy"]
    # About 1,900 turns: four standard deviations.
    assert np.mean(np.concatenate(pool["noise_turns"])) == pytest.approx(0.5, abs=0.05)
    mixed = 0
    for row in pool:
        said = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        assert len(said) == len(row["noise_turns"]) == len(row["rewards"])
        assert len({text for text, is_bot in zip(said, row["noise_turns"]) if is_bot}) <= 1
        assert row["is_noise"] == any(row["noise_turns"]) == (row["noise_kind"] == "bot_turns")
        mixed += any(row["noise_turns"]) and not all(row["noise_turns"])
    assert mixed > 150


def test_the_answers_and_rewards_are_those_of_the_game():
    for row in add_bot_turns(CLEAN, ENV.world, share=0.5):
        ENV.reset(task=row["task"]["id"])
        messages = row["messages"][1:]
        for number, reward in enumerate(row["rewards"]):
            answer, expected, terminated, _, _ = ENV.step(messages[2 * number]["content"])
            assert reward == expected and terminated == (number == len(row["rewards"]) - 1)
            assert terminated or messages[2 * number + 1]["content"] == answer


def test_turns_depend_on_the_seed_and_the_share():
    assert add_bot_turns(CLEAN, ENV, seed=1).to_list() == add_bot_turns(CLEAN, ENV, seed=1).to_list()
    assert add_bot_turns(CLEAN, ENV, seed=1).to_list() != add_bot_turns(CLEAN, ENV, seed=2).to_list()
    assert not any(add_bot_turns(CLEAN, ENV, share=0.0)["is_noise"])
    with pytest.raises(ValueError, match="`share` must be between 0 and 1, got 1.5"):
        add_bot_turns(CLEAN, ENV, share=1.5)
