"""Offline episodes as trajectories."""

import pytest

from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments.base import Task
from boost_trl.environments.webshop import (
    offline_trajectories,
)
from boost_trl.environments.webshop.scripted_policies import STRATEGIES


@pytest.mark.parametrize("name", ["full", "text", "small"])
def test_rows_are_trajectories(rows, shops, name):
    data = rows[name]
    validate_trajectories(data)
    assert {"messages", "rewards", "terminated", "category", "source", "task", "policy", "score", "success"} <= set(
        data.column_names
    )
    assert set(data["source"]) == {"offline"}
    assert set(data["policy"]) == set(STRATEGIES)
    roles = {message["role"] for messages in data["messages"] for message in messages}
    assert roles == ({"user", "assistant"} if name == "small" else {"system", "user", "assistant"})


@pytest.mark.parametrize("name", ["full", "small"])
def test_rows_are_what_the_shop_answers(rows, shops, name):
    shop = shops[name]
    for row in rows[name].select(range(0, 500, 10)):
        said = [message["content"] for message in row["messages"] if message["role"] != "system"]
        observation, info = shop.reset(task=Task(**row["task"]))
        rewards = []
        for at in range(0, len(said) - 1, 2):
            assert said[at] == observation
            observation, reward, terminated, truncated, info = shop.step(said[at + 1])
            rewards.append(reward)
        assert (terminated, truncated) == (row["terminated"], not row["terminated"])
        assert truncated == (said[-1] == observation)
        assert rewards == row["rewards"]
        assert info["category"] == row["category"]


@pytest.mark.parametrize("name", ["full", "small"])
def test_rewards_are_discounted_scores(rows, name):
    for row in rows[name]:
        assert sum(row["rewards"]) == pytest.approx(0.99 ** (len(row["rewards"]) - 1) * row["score"])
        assert row["success"] == (row["score"] == 1.0)
        assert row["terminated"] or row["score"] == 0.0


def test_everything_follows_from_the_seed(shops):
    shop = shops["small"]
    one, same, other = (offline_trajectories(shop, 40, seed=seed) for seed in (1, 1, 2))
    assert one.to_list() == same.to_list() != other.to_list()


def test_all_tasks_are_played_before_one_is_played_again(shops):
    data = offline_trajectories(shops["small"], 480, mix={"hasty": 1})
    assert len({task["id"] for task in data["task"]}) == 480


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mix": {"genius": 1}}, "unknown policies ..genius"),
        ({"mix": {"expert": -1, "hasty": 2}}, "at least 0"),
        ({"mix": {}}, "at least 0"),
        ({"n": 0}, "`n` must be at least 1, got 0"),
    ],
)
def test_bad_arguments(shops, arguments, message):
    with pytest.raises(ValueError, match=message):
        offline_trajectories(shops["small"], **({"n": 5} | arguments))
