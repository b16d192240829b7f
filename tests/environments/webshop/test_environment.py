"""The embedded shop: pages word for word, transitions, rewards, bad input, determinism."""

import copy
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from boost_trl.environments.base import Environment, Task
from boost_trl.environments.webshop import WebShop, generate_catalogue, generate_small_catalogue

from .hats import make_catalogue, make_product, play


def test_is_an_environment(shop):
    assert isinstance(shop, Environment)
    assert shop.name == "webshop"
    assert shop.max_steps == 15


def test_admissible_actions(shop):
    assert shop.admissible_actions() == ["search[<words>]"]
    shop.step("search[hat]")
    listed = ["click[back to search]", "click[next >]", "click[b000000001]", "click[b000000002]"]
    assert sorted(shop.admissible_actions()) == sorted(listed)
    shop.step("click[next >]")
    assert shop.admissible_actions() == ["click[back to search]", "click[< prev]", "click[next >]"]
    play(shop, "click[< prev]", "click[b000000001]")
    names = "back to search, < prev, description, features, reviews, buy now, red, blue, small, large"
    assert shop.admissible_actions() == [f"click[{name}]" for name in names.split(", ")]
    shop.step("click[features]")
    assert shop.admissible_actions() == ["click[back to search]", "click[< prev]"]
    play(shop, "click[< prev]", "click[buy now]")
    assert shop.admissible_actions() == []


def test_what_is_remembered_and_forgotten(shop):
    play(shop, "search[hat]", "click[b000000001]", "click[red]", "click[description]", "click[< prev]")
    assert shop.options == {"color": "red"}
    shop.step("click[< prev]")
    assert (shop.options, shop.visited) == ({}, {"B000000001"})
    shop.step("search[straw]")  # also possible where there is no search bar
    assert shop.visited == {"B000000001"}
    shop.step("click[back to search]")
    assert shop.visited == set()


def test_a_search_works_on_pages_that_do_not_list_it(shop):
    assert "search[<words>]" in shop.admissible_actions()
    for action in ("search[hat]", "click[b000000001]", "click[features]"):
        assert shop.step(action)[4]["valid"] and "search[<words>]" not in shop.admissible_actions()
        *_, info = copy.deepcopy(shop).step("search[warm hat]")
        assert (info["valid"], info["page"]) == (True, "results")


def test_debug_searches_of_the_original_are_words(shop):
    observation = shop.step("search[<r>]")[0]
    assert "Total results: 0" in observation


def test_results_per_page():
    products = [make_product(f"B{number:09d}", f"Warm Hat {number}") for number in range(1, 8)]
    shop = WebShop(make_catalogue(*products), results_per_page=3, observation="text")
    shop.reset(seed=0)
    assert "B000000003" in shop.step("search[hat]")[0]
    assert shop.step("click[next >]")[0].count("Warm Hat") == 3
    assert shop.step("click[next >]")[0].count("Warm Hat") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"observation": "html"}, "'html' is not one of"),
        ({"max_steps": 0}, "max_steps"),
        ({"max_searches": 0}, "max_searches"),
        ({"results_per_page": 0}, "results_per_page"),
        ({"discount": 0.0}, "discount"),
        ({"discount": 1.1}, "discount"),
        ({"catalogue": "huge"}, "'huge' is not 'full', 'small'"),
        ({"catalogue": 5}, "catalogue 5 is not 'full', 'small' or a Catalogue"),
        ({"catalogue": "small", "seed": "a"}, "`seed` must be a whole number, got 'a'"),
        ({"catalogue": "small", "seed": 0.5}, "`seed` must be a whole number, got 0.5"),
        ({"seed": 0}, "seed=0 makes a generated shop; this catalogue is made already"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        WebShop(**({"catalogue": make_catalogue()} | arguments))


@pytest.fixture(scope="module")
def small():
    return WebShop(generate_small_catalogue(), observation="compact", results_per_page=3)


def test_tasks(small):
    tasks = small.tasks()
    assert len({task.id for task in tasks}) == len(tasks) == 480
    categories = list(dict.fromkeys(task.category for task in tasks))
    assert len(categories) == 12
    chosen = small.tasks(categories[:2])
    assert chosen == [task for task in tasks if task.category in categories[:2]]
    with pytest.raises(ValueError, match="no task has category 'Toys'"):
        small.tasks(["Toys"])


def test_tasks_are_replayed(small):
    task = small.tasks()[17]
    observation, info = small.reset(task=task)
    assert (observation, info["task_id"], info["category"]) == (task.prompt, task.id, task.category)
    assert small.reset(task=task.id)[0] == observation
    assert small.reset(task=Task(**task.to_dict()))[0] == observation
    assert small.reset(seed=4) == small.reset(seed=4)
    assert len({small.reset(seed=seed)[1]["task_id"] for seed in range(40)}) > 30


def test_unknown_tasks(small):
    with pytest.raises(ValueError, match="no task 'webshop-99999'"):
        small.reset(task="webshop-99999")
    for other in (5, small.tasks()[0].to_dict()):
        with pytest.raises(ValueError, match="`task` must be a Task or its id, got"):
            small.reset(task=other)
    with pytest.raises(RuntimeError, match="call reset"):
        small.step("search shirt")
    task = WebShop(generate_small_catalogue(seed=1), observation="compact").tasks()[0]
    with pytest.raises(ValueError, match="another catalogue"):
        small.reset(task=task)


def test_copies_share_the_catalogue(small):
    small.reset(seed=0)
    other = copy.deepcopy(small)
    other.step("search[shirt]")
    assert other.catalogue is small.catalogue
    assert small.page.kind == "index"


def test_random_play_never_fails_and_leaves_global_randomness_alone():
    shop = WebShop(generate_catalogue(0, 370, 5))
    state, numpy_state = random.getstate(), np.random.get_state()[1].tolist()
    rng = random.Random(0)
    endings = set()
    for seed in range(150):
        shop.reset(seed=seed)
        over = False
        while not over:
            action = rng.choice(shop.admissible_actions())
            _, reward, terminated, truncated, info = shop.step(
                action.replace("<words>", rng.choice(["red", "soap 8"]))
            )
            assert info["valid"]
            over = terminated or truncated
        endings.add(terminated)
        assert 0 <= info["score"] <= 1
    assert endings == {True, False}
    assert random.getstate() == state
    assert np.random.get_state()[1].tolist() == numpy_state


def test_equal_in_every_process():
    program = (
        "from boost_trl.environments.webshop import *\n"
        "full, small = generate_catalogue(3, 185, 4), generate_small_catalogue(3)\n"
        "shop = WebShop(full); pages = [shop.reset(seed=5)[0], shop.step('search[soft red]')[0]]\n"
        "print(full.fingerprint, small.fingerprint, full.index.terms[:50], pages)\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert "Instruction" in outputs[0]


def test_a_seed_is_a_shop():
    shops = [WebShop("small", seed=seed) for seed in (3, 3, 4)]
    prompts = [[task.prompt for task in shop.tasks()] for shop in shops]
    assert prompts[0] == prompts[1] != prompts[2]
    assert len({shop.catalogue.fingerprint for shop in shops}) == 2
