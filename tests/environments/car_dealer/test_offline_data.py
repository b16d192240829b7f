"""Offline dialogues as trajectories."""

import pytest

from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.offline_data import offline_trajectories
from boost_trl.environments.car_dealer.scripted_policies import ScriptedPolicy


@pytest.fixture(scope="module")
def dialogues():
    return {world: offline_trajectories(CarDealer(world=world), n=300, seed=1) for world in ("full", "small")}


@pytest.mark.parametrize("world", ["full", "small"])
def test_rows_are_trajectories(dialogues, world):
    rows = dialogues[world]
    validate_trajectories(rows)
    for row in rows:
        assert row["messages"][-1]["role"] == "assistant"
        if row["success"]:
            assert sum(row["rewards"]) == 1 - len(row["rewards"]) and row["score"] == 50 - 2 * len(row["rewards"])
            assert row["task"]["data"]["floor"] <= row["price_ratio"] * row["task"]["data"]["sticker"] + 1e-6
        else:
            assert sum(row["rewards"]) == -25 and row["score"] == 0 == row["price_ratio"]


def test_rows_depend_on_seed_and_index_alone(dialogues):
    env = CarDealer(world="small")
    assert offline_trajectories(env, n=20, seed=1).to_list() == dialogues["small"].to_list()[:20]
    assert offline_trajectories(env, n=20, seed=2).to_list() != dialogues["small"].to_list()[:20]


def test_mix_and_categories():
    env = CarDealer(world="small")
    rows = offline_trajectories(env, n=30, mix={"stubborn": 1}, categories=["Tesla", "BMW"])
    assert set(rows["policy"]) == {"stubborn"} and set(rows["category"]) == {"Tesla", "BMW"}
    for options, match in (
        ({"mix": {"saint": 1}}, "saint"),
        ({"mix": {"stubborn": 0}}, "shares"),
        ({"mix": {}}, "shares"),
        ({"n": 0}, "`n`"),
        ({"categories": ["Fiat"]}, "Fiat"),
        ({"slips": 3}, "slips"),
    ):
        with pytest.raises(ValueError, match=match):
            offline_trajectories(env, **{"n": 5, **options})
    with pytest.raises(ValueError, match="saint"):
        ScriptedPolicy(env, "saint")
