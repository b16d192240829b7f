"""Scripted policies of different quality."""

from collections import defaultdict
from statistics import mean

import pytest

from boost_trl.environments.webshop import (
    offline_trajectories,
)
from boost_trl.environments.webshop.scripted_policies import DEFAULT_MIX


@pytest.mark.parametrize("name", ["full", "small"])
def test_shoppers_differ_in_quality(rows, name):
    returns = defaultdict(list)
    for row in rows[name]:
        returns[row["policy"]].append(row["score"])
    score = {policy: mean(scores) for policy, scores in returns.items()}
    assert score["privileged_expert"] >= 0.97
    assert score["expert"] > score["wrong_option"] + 0.05
    assert score["expert"] > score["hasty"] + 0.1 > score["random"] + 0.3
    assert score["random"] < 0.35
    assert score["broken"] < 0.4


def test_the_default_mix_leaves_room_both_ways(shops):
    data = offline_trajectories(shops["full"], 400)
    assert 0.4 < mean(data["score"]) < 0.75
    assert 0.1 < mean(data["success"]) < 0.5
    assert sum(DEFAULT_MIX.values()) == pytest.approx(1)


def test_broken_shoppers_do_what_bad_synthetic_data_does(rows):
    actions = [
        message["content"]
        for row in rows["full"]
        if row["policy"] == "broken"
        for message in row["messages"]
        if message["role"] == "assistant"
    ]
    assert any(action.startswith("think[") for action in actions)
    assert sum(action.startswith("search[") for action in actions) > 1
