import random

import numpy as np
import pytest

from boost_trl import validate_trajectories
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories


@pytest.mark.parametrize("reward", ["step_cost", "score"])
@pytest.mark.parametrize("world", ["small", "full"])
def test_dialogues_are_games_that_were_played(world, reward):
    env = TwentyQuestions(world=world, reward=reward)
    categories = env.world.categories[:5]
    dataset = offline_trajectories(env, 60, seed=4, categories=categories)
    validate_trajectories(dataset)
    assert set(dataset["category"]) <= set(categories) and set(dataset["source"]) == {"offline"}
    assert not any(dataset["is_noise"]) and set(dataset["noise_kind"]) == {""} and len(set(dataset["policy"])) > 2
    for row in dataset:
        observation, _ = env.reset(task=row["task"]["id"])
        heard, rewards = [observation], []
        messages = [m for m in row["messages"] if m["role"] != "system"]
        for message in messages[1::2]:
            observation, reward, terminated, _, info = env.step(message["content"])
            heard.append(observation)
            rewards.append(reward)
        assert [m["content"] for m in messages[::2]] == heard[:-1] and rewards == row["rewards"]
        assert terminated and (info["score"], info["success"]) == (row["score"], row["success"])


def test_dialogues_depend_on_their_seed_alone():
    env = TwentyQuestions()
    random_state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()
    long, short = offline_trajectories(env, 30, seed=1), offline_trajectories(env.world, 10, seed=1)
    assert long.select(range(10)).to_list() == short.to_list()
    assert offline_trajectories(env, 10, seed=2).to_list() != short.to_list()
    assert random.getstate() == random_state and np.random.get_state()[1].tolist() == numpy_state


def test_mix_of_players():
    env = TwentyQuestions()
    assert set(offline_trajectories(env, 20, mix={"expert": 1, "random": 0})["policy"]) == {"expert"}
    with pytest.raises(ValueError, match="genius"):
        offline_trajectories(env, 20, mix={"genius": 1.0})


def test_people_reword_their_questions_in_the_full_world():
    env = TwentyQuestions(world="full")
    usual = {question.text for question in env.world.questions}
    asked = [
        message["content"]
        for row in offline_trajectories(env, 60, mix={"expert": 1.0})
        for message in row["messages"]
        if message["role"] == "assistant" and env.world.read(message["content"])[0] is not None
    ]
    assert 0.02 < np.mean([text not in usual for text in asked]) < 0.2
