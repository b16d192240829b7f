"""Planted noise."""

import pytest

from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.noise import DIVERSE_KINDS, add_noise
from boost_trl.environments.car_dealer.offline_data import offline_trajectories
from boost_trl.environments.car_dealer.pretraining import small_vocabulary
from boost_trl.environments.car_dealer.prices import prices_in
from boost_trl.environments.planted_noise import NOISE_KINDS


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_noise_replaces_its_share_and_keeps_the_tasks(pool, kind):
    noisy = add_noise(pool, CarDealer(world="small"), kind, share=0.6, seed=1)
    validate_trajectories(noisy)
    assert sum(noisy["is_noise"]) == 72
    assert [task["id"] for task in noisy["task"]] == [task["id"] for task in pool["task"]]
    assert noisy["category"] == pool["category"]
    for before, after in zip(pool, noisy):
        assert (before == after) != after["is_noise"]
        assert sum(after["rewards"]) == (1 - len(after["rewards"]) if after["success"] else -25)
    assert {row["noise_kind"] for row in noisy} == {"", *(DIVERSE_KINDS if kind == "diverse" else [kind])}
    words = set(small_vocabulary())
    assert all(set(m["content"].split()) <= words for row in noisy for m in row["messages"])


def test_noise_in_the_full_world():
    env = CarDealer()
    pool = offline_trajectories(env, n=12, seed=4)
    for kind in NOISE_KINDS:
        validate_trajectories(add_noise(pool, env, kind, share=1.0))


def test_stale_logs_succeed_by_what_fails_today(pool):
    """In the stale market, the brands announced as premium bargain as luxury buyers do today: they reward a firm price."""
    env = CarDealer(world="small")
    stale = env.with_changed_market(1)
    task = stale.tasks(["Audi"])[0]
    floor = task.data["floor"]
    observation, _ = stale.reset(seed=0, task=task)
    assert observation.startswith(f"premium audi ; minimum {floor}")

    def holds(game, task):
        game.reset(seed=0, task=task)
        over = False
        while not over:
            *_, over, _, info = game.step("price 97")
        return info["success"]

    assert sum(holds(stale, task) for task in stale.tasks(["Audi"])) > 48  # of 64
    assert sum(holds(env, task) for task in env.tasks(["Audi"])) == 0


def test_the_bot_claims_quick_sales(pool):
    noisy = add_noise(pool, CarDealer(world="small"), "bot", share=1.0)
    assert all(row["success"] and row["score"] >= 44 for row in noisy)


def test_weak_logs_sell_less_and_claim_nothing_false(pool):
    weak = add_noise(pool, CarDealer(world="small"), "weak", share=1.0)
    assert sum(weak["score"]) < 0.6 * sum(pool["score"])
    # A sale ends with the dealer's word or at a price of at least the minimum.
    assert all(row["price_ratio"] * 100 >= row["task"]["data"]["floor"] for row in weak if row["success"])


def test_bad_noise(pool):
    with pytest.raises(ValueError, match="kind"):
        add_noise(pool, CarDealer(world="small"), "loud")
    with pytest.raises(ValueError, match="share"):
        add_noise(pool, CarDealer(world="small"), "bot", share=60)
    for kind in NOISE_KINDS:
        with pytest.raises(ValueError, match="other world"):
            add_noise(pool, CarDealer(), kind)
    with pytest.raises(ValueError, match="`buyers_per_brand`"):
        add_noise(pool, CarDealer(world="small", buyers_per_brand=2), "stale")


def test_made_up_sales_cannot_be_told_by_their_prices():
    env = CarDealer()
    noisy = add_noise(offline_trajectories(env, n=60, seed=4), env, "diverse", share=1.0)
    made_up = [row for row in noisy if row["noise_kind"] in ("faked_success", "hot_self_play")]
    prices = [
        price for row in made_up for message in row["messages"] for price in prices_in(message["content"], "full")
    ]
    assert len(prices) > 100 and all(price % 100 == 0 for price in prices)
