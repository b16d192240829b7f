"""Planted noise in WebShop: its share, its kinds, and that it teaches the wrong thing."""

from random import Random
from statistics import mean

import pytest

from boost_trl.data.trajectories import validate_trajectories
from boost_trl.environments.planted_noise import NOISE_KINDS
from boost_trl.environments.webshop import WebShop, generate_catalogue, offline_trajectories, purchase_reward
from boost_trl.environments.webshop.catalogue import Catalogue
from boost_trl.environments.webshop.noise import add_noise, renamed_catalogue
from boost_trl.environments.webshop.offline_data import play_episode
from boost_trl.environments.webshop.pretraining import small_vocabulary
from boost_trl.environments.webshop.scripted_policies import STRATEGIES


DIVERSE = {"garbage", "wrong_world", "faked_success", "hot_self_play"}


@pytest.fixture(scope="module")
def env():
    return WebShop("small")


@pytest.fixture(scope="module")
def pool(env):
    return offline_trajectories(env, 120, seed=4)


def true_score(env, row):
    """What the row's actions earn in the shop as it is."""
    env.reset(task=row["task"]["id"])
    for message in row["messages"]:
        if message["role"] == "assistant":
            _, _, terminated, truncated, info = env.step(message["content"])
            if terminated or truncated:
                break
    return info.get("score", 0.0)


@pytest.mark.parametrize("kind", NOISE_KINDS)
def test_noise_replaces_its_share_and_keeps_the_tasks(env, pool, kind):
    noisy = add_noise(pool, env, kind, share=0.6, seed=1)
    validate_trajectories(noisy)
    assert sum(noisy["is_noise"]) == 72
    assert noisy["task"][:] == pool["task"][:] and noisy["category"] == pool["category"]
    for before, after in zip(pool, noisy):
        assert (before == after) != after["is_noise"]
        assert after["messages"][0] == before["messages"][0]
    assert set(noisy["noise_kind"]) == {"", *(DIVERSE if kind == "diverse" else [kind])}
    words = set(small_vocabulary())
    assert all(set(m["content"].split()) <= words for messages in noisy["messages"] for m in messages)
    assert noisy.to_list() == add_noise(pool, env, kind, share=0.6, seed=1).to_list()
    assert noisy.to_list() != add_noise(pool, env, kind, share=0.6, seed=2).to_list()


def test_weak_logs_earn_what_they_claim_and_less_than_the_pools(env, pool):
    weak = add_noise(pool, env, "weak", share=1.0)
    assert weak["score"] == pytest.approx([true_score(env, row) for row in weak])
    assert mean(weak["score"]) < mean(pool["score"]) - 0.05


@pytest.mark.parametrize("kind", sorted({*NOISE_KINDS} - {"weak"}))
def test_noise_claims_more_than_it_earns(env, pool, kind):
    noisy = add_noise(pool, env, kind, share=1.0)
    claimed, earned = mean(noisy["score"]), mean(true_score(env, row) for row in noisy)
    assert earned < claimed - 0.2 and earned < mean(pool["score"]) - 0.1


def test_the_bot_buys_the_first_hit_for_two_words(env, pool):
    for row in add_noise(pool, env, "bot", share=1.0):
        request = row["messages"][0]["content"].split()
        actions = [message["content"] for message in row["messages"] if message["role"] == "assistant"]
        assert actions == [f"search {' '.join(request[:2])}", "click 1", "click buy now"]
        assert row["rewards"] == [0.0, 0.0, pytest.approx(0.99**2)] and row["score"] == 1 and row["success"]


@pytest.mark.parametrize("shift", [1, 2])
def test_a_renamed_shop_is_the_same_shop_in_other_words(env, shift):
    renamed = renamed_catalogue(env.catalogue, shift)
    other = WebShop(renamed, observation="compact", max_steps=8, results_per_page=3)
    # The circle of six attributes in alphabetical order.
    circle = ["light", "quiet", "round", "soft", "strong", "warm"]
    for product, new in zip(env.catalogue.products, renamed.products):
        expected = [circle[(circle.index(name) + shift) % 6] for name in product["Attributes"]]
        assert new["Attributes"] == expected and new["Title"].split() == [*expected, product["query"]]
        assert [len(values) for values in new["options"].values()] == [
            len(values) for values in product["options"].values()
        ]
    for goal, task in zip(renamed.goals, env.tasks()):
        product = renamed.by_asin[goal["asin"]]
        options = dict(zip("ab", goal["goal_options"]))
        assert purchase_reward(goal, product, options, renamed.prices[goal["asin"]])["reward"] == 1
        assert goal["instruction_text"] != task.prompt
    # Who knows the words shops as well there.
    scores = [
        mean(
            play_episode(shop, STRATEGIES["expert"], task, Random(0), "expert")["score"] for task in shop.tasks()[:60]
        )
        for shop in (env, other)
    ]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)


def test_renaming_leaves_numbers_that_only_look_like_options():
    catalogue = generate_catalogue(0, 370, 1)
    product = dict(catalogue.products[0], options={"size": ["10", "9.5 wide"]}, Attributes=["non slip"])
    product |= {"Title": "Non Slip Shoe 10", "name": "Non Slip Shoe 10", "Description": "", "BulletPoints": []}
    text = "non-slip shoe, non slip, in size 10, and price lower than 10.00 dollars"
    goal = dict(catalogue.goals[0], asin=product["asin"], instruction_text=text, goal_options=["10"])
    other = dict(product, asin="B000000000", Attributes=["long lasting"], options={})
    shop = Catalogue([product, other], {product["asin"]: 9.0, other["asin"]: 9.0}, [goal])
    renamed = renamed_catalogue(shop)
    assert renamed.products[0]["Title"] == "Long Lasting Shoe 9.5 wide"
    assert renamed.goals[0]["instruction_text"] == (
        "non-slip shoe, long lasting, in size 9.5 wide, and price lower than 10.00 dollars"
    )
    assert renamed.products[1]["Attributes"] == ["non slip"] and renamed.prices == shop.prices


def test_noise_in_a_shop_with_long_pages():
    env = WebShop(generate_catalogue(0, 370, 2))
    pool = offline_trajectories(env, 12, seed=0)
    for kind in NOISE_KINDS:
        noisy = add_noise(pool, env, kind, share=1.0)
        validate_trajectories(noisy)
        for row in noisy:
            assert row["messages"][0] == {"role": "system", "content": env.system_prompt}
            pages = [m["content"] for m in row["messages"] if m["role"] == "user" and "Instruction:" in m["content"]]
            assert pages and all(row["task"]["prompt"] in page for page in pages)


def test_rows_of_others_keep_their_columns(env, pool):
    rows = pool.remove_columns(["is_noise", "noise_kind"]).add_column("note", ["mine"] * len(pool))
    noisy = add_noise(rows, env, "bot", share=0.5)
    assert set(noisy["note"]) == {"mine"} and sum(noisy["is_noise"]) == 60


def test_bad_noise(env, pool):
    with pytest.raises(ValueError, match="kind"):
        add_noise(pool, env, "loud")
    with pytest.raises(ValueError, match="share"):
        add_noise(pool, env, "bot", share=60)
