"""Planted noise and the texts of the embedded model."""

import pytest

from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.noise import DIVERSE_KINDS, add_noise
from boost_trl.environments.car_dealer.offline_data import offline_trajectories
from boost_trl.environments.car_dealer.pretraining import pretraining_episodes, small_vocabulary, wish_lists
from boost_trl.environments.car_dealer.prices import prices_in
from boost_trl.environments.planted_noise import NOISE_KINDS


@pytest.fixture(scope="module")
def pool():
    return offline_trajectories(CarDealer(world="small"), n=120, seed=4)


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


def test_pretraining_dialogues_are_not_the_pool(pool):
    texts = pretraining_episodes(150, seed=0)
    words = set(small_vocabulary())
    assert all(set(turn.split()) <= words for turns in texts for turn in turns)
    assert {turns[-1].split()[0] for turns in texts} >= {"deal", "bye"}
    assert all(len(turns) % 2 == 1 for turns in texts)  # the buyer opens and closes
    assert texts == pretraining_episodes(160, seed=0)[:150]
    for want, has in wish_lists(20):
        assert want.split()[1:] == has.split()[1:] and set(want.split() + has.split()) <= words


def test_a_model_plays_both_roles_and_a_live_game(pool):
    from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer
    from boost_trl.environments.rollout import rollout
    from boost_trl.environments.synthetic import generate_synthetic

    env = CarDealer(world="small", max_utterances=6)
    tokenizer = word_tokenizer(small_vocabulary())
    model = tiny_gpt2(tokenizer, hidden_size=16, num_layers=1, num_heads=2, max_length=128)
    few = pool.select(range(4))
    synthetic = generate_synthetic(model, tokenizer, few, env, max_new_tokens=4, progress=False)
    validate_trajectories(synthetic)
    for row, parent in zip(synthetic, few):
        assert row["messages"][:2] == parent["messages"][:2] and row["category"] == parent["category"]
    played = rollout((model, tokenizer), env, env.tasks(["Tesla"])[:3], progress=False)
    assert played["error"] == [None] * 3 and {sum(rewards) for rewards in played["rewards"]} <= {-3.0, -2.0, -1.0}
