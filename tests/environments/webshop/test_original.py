"""Adapters to the original: what a stand-in for its site and its gym environment shows and pays arrives unchanged."""

import random
import re

import pytest

from boost_trl.environments.base import Environment
from boost_trl.environments.rollout import rollout
from boost_trl.environments.webshop import WebShop, WebShopAgentGym, WebShopGym, WebShopHTTP

from .original_webshop import OriginalGym


def make_shop(kind, odd_catalogue, site, **options):
    if kind == "gym":
        return WebShopGym(OriginalGym(odd_catalogue), **options)
    return WebShopHTTP(site.url, catalogue=odd_catalogue, **options)


@pytest.mark.parametrize("kind", ["http", "gym"])
@pytest.mark.parametrize("observation", ["text", "text_rich", "compact"])
def test_plays_as_the_embedded_shop(kind, observation, odd_catalogue, site):
    ours = WebShop(odd_catalogue, observation=observation, max_steps=14)
    theirs = make_shop(kind, odd_catalogue, site, observation=observation, max_steps=14)
    assert isinstance(theirs, Environment)
    pages, endings = 0, set()
    for episode in range(12):
        rng = random.Random(episode)
        number = rng.randrange(len(odd_catalogue.goals))
        observed, info = ours.reset(task=ours.tasks()[number])
        answered, answered_info = theirs.reset(task=f"fixed_{number}")
        assert answered_info["category"] == info["category"]
        over = False
        while not over:
            pages += 1
            assert answered == observed
            assert theirs.admissible_actions() == ours.admissible_actions()
            action = rng.choice(ours.admissible_actions())
            action = action.replace("<words>", " ".join(rng.sample(ours.goal["instruction_text"].split(), 3)))
            if rng.random() < 0.1:
                action = rng.choice(["click[nothing]", "think[hm]", "search[]"])
            observed, *outcome, info = ours.step(action)
            answered, *answered_outcome, answered_info = theirs.step(action)
            assert answered_outcome == outcome
            keys = ("valid", "page", "step", "score", "success", "reward_parts")
            assert {key: answered_info.get(key) for key in keys} == {key: info.get(key) for key in keys}
            over = any(outcome[1:])
        assert answered == observed
        endings.add(info["page"] == "done")
    assert endings == {True, False}
    assert pages > 60


@pytest.mark.parametrize(("kind", "num_envs"), [("http", 3), ("gym", 1), ("gym", 3)])
def test_rollout(kind, num_envs, odd_catalogue, site):
    shop = make_shop(kind, odd_catalogue, site)

    def policy(conversations):
        moves = ["search[easy clean soap]", None, "click[buy now]"]
        replies = []
        for messages in conversations:
            turn = sum(message["role"] == "assistant" for message in messages)
            listed = re.search(r"\[button\] (B0\w{8})", messages[-1]["content"])
            replies.append(moves[turn] or f"click[{listed[1]}]")
        return replies

    rows = rollout(policy, shop, shop.tasks()[:6], num_envs=num_envs, progress=False)
    assert rows["error"] == [None] * 6
    assert all(rows["terminated"])
    assert all(0 <= score <= 1 for score in rows["score"])


@pytest.mark.parametrize("kind", ["http", "gym"])
def test_tasks(kind, odd_catalogue, site):
    shop = make_shop(kind, odd_catalogue, site)
    assert len(shop.tasks()) == len(odd_catalogue.goals)
    category = shop.tasks()[0].category
    assert {task.category for task in shop.tasks([category])} == {category}
    assert shop.reset(seed=3) == shop.reset(seed=3)
    with pytest.raises(ValueError, match="no task is called 'fixed_9999'"):
        shop.reset(task="fixed_9999")
    with pytest.raises(ValueError, match="no task has category 'Toys'"):
        shop.tasks(["Toys"])
    for task in (5, {"id": "fixed_0", "category": category}):
        with pytest.raises(ValueError, match="`task` must be a Task or its id"):
            shop.reset(task=task)


@pytest.mark.parametrize("shop", [WebShopHTTP, WebShopAgentGym])
@pytest.mark.parametrize(("url", "goals"), [("localhost:3000", 5), ("http://localhost", 0)])
def test_bad_arguments(shop, url, goals):
    with pytest.raises(ValueError, match="base_url|num_goals"):
        shop(url, num_goals=goals)
