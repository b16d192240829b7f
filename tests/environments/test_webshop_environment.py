"""The embedded shop: pages word for word, transitions, rewards, bad input, determinism."""

import copy
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from boost_trl.environments.base import Environment, Task
from boost_trl.environments.webshop import Catalogue, WebShop, generate_catalogue, generate_small_catalogue


INSTRUCTION = "i need a red hat that is soft, and price lower than 40.00 dollars"


def make_product(asin, title, **changes):
    product = {
        "asin": asin,
        "name": title,
        "category": "fashion",
        "query": "hats",
        "product_category": "Clothing › Men › Hats",
        "Title": title,
        "Description": "Keeps you warm.",
        "BulletPoints": ["soft wool", "machine wash"],
        "Rating": "N.A.",
        "pricing": [12.5],
        "Price": "$12.5",
        "options": {"color": ["red", "blue"], "size": ["small", "large"]},
        "Attributes": ["soft"],
    }
    return product | changes


def make_catalogue(*products):
    goal = {
        "asin": "B000000001",
        "category": "fashion",
        "query": "hats",
        "name": "Warm Hat",
        "product_category": "Clothing › Men › Hats",
        "instruction_text": INSTRUCTION,
        "attributes": ["soft"],
        "price_upper": 40.0,
        "goal_options": ["red"],
        "weight": 1.0,
    }
    products = products or (make_product("B000000001", "Warm Hat"), make_product("B000000002", "Straw Hat & Cap"))
    return Catalogue(products, {product["asin"]: product["pricing"][0] for product in products}, [goal])


@pytest.fixture
def shop():
    shop = WebShop(make_catalogue())
    shop.reset(seed=0)
    return shop


def play(shop, *actions):
    for action in actions:
        result = shop.step(action)
    return result


def test_is_an_environment(shop):
    assert isinstance(shop, Environment)
    assert shop.name == "webshop"
    assert shop.max_steps == 15


def test_simple_text():
    shop = WebShop(make_catalogue(), observation="text", leak_reward=True)
    first, _ = shop.reset(seed=0)
    assert first == f"WebShop [SEP] Instruction: [SEP] {INSTRUCTION} [SEP] Search"
    head = f"Instruction: [SEP] {INSTRUCTION} [SEP] Back to Search [SEP] "
    assert shop.step("search[warm hat]")[0] == head + (
        "Page 1 (Total results: 2) [SEP] Next > [SEP] B000000001 [SEP] Warm Hat [SEP] $12.5 [SEP] "
        "B000000002 [SEP] Straw Hat & Cap [SEP] $12.5"
    )
    assert shop.step("click[next >]")[0] == head + "Page 2 (Total results: 2) [SEP] < Prev [SEP] Next >"
    item = head + (
        "< Prev [SEP] color [SEP] red [SEP] blue [SEP] size [SEP] small [SEP] large [SEP] Warm Hat [SEP] Price: $12.5 "
        "[SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now"
    )
    assert play(shop, "click[< prev]", "click[B000000001]")[0] == item
    assert shop.step("click[red]")[0] == item  # simple text does not show what is chosen
    assert shop.step("click[features]")[0] == head + "< Prev [SEP] soft wool [SEP] machine wash"
    assert play(shop, "click[< prev]", "click[description]")[0] == head + "< Prev [SEP] Keeps you warm."
    assert play(shop, "click[< prev]", "click[reviews]")[0] == head + "< Prev"
    last, reward, terminated, _, _ = play(shop, "click[< prev]", "click[Buy Now]")
    assert terminated
    assert last == (
        "Thank you for shopping with us! [SEP] Your code: [SEP] None [SEP] (Paste it in your MTurk interface.) [SEP] "
        'Purchased [SEP] asin [SEP] B000000001 [SEP] options [SEP] {"color": "red"} [SEP] attrs [SEP] None [SEP] '
        "category [SEP] None [SEP] query [SEP] None [SEP] product category [SEP] None [SEP] Target [SEP] asin [SEP] "
        "options [SEP] attrs [SEP] price upper [SEP] instuction text [SEP] category [SEP] product category [SEP] "
        "query [SEP] Goal [SEP] None [SEP] Reward [SEP] Your score (min 0.0, max 1.0) [SEP] 1.0 [SEP] "
        "Reward Details [SEP] None"
    )


def test_rich_text(shop):
    first, _ = shop.reset(seed=0)
    assert first == f"WebShop\nInstruction: \n{INSTRUCTION}\n[button] Search [button_]\n"
    head = f"Instruction:\n{INSTRUCTION}\n[button] Back to Search [button_]\n"
    play(shop, "search[warm hat]", "click[b000000001]")
    results = shop.step("click[< prev]")[0]
    assert results == head + (
        "Page 1 (Total results: 2)\n[button] Next > [button_]\n"
        "\n[clicked button] B000000001 [clicked button_]\nWarm Hat\n$12.5\n"
        "\n[button] B000000002 [button_]\nStraw Hat & Cap\n$12.5\n"
    )
    item = play(shop, "click[b000000001]", "click[blue]", "click[red]", "click[large]")[0]
    assert item == "You have clicked large.\nYou have clicked red.\n" + head + (
        "[button] < Prev [button_]\n"
        "color\n  [clicked button] red [clicked button_]\n  [button] blue [button_]\n"
        "size\n  [button] small [button_]\n  [clicked button] large [clicked button_]\n"
        "Warm Hat\nPrice: $12.5\nRating: N.A.\n"
        "[button] Description [button_]\n[button] Features [button_]\n[button] Reviews [button_]\n"
        "[button] Buy Now [button_]\n"
    )
    features = shop.step("click[features]")[0]
    assert features == head + "[button] < Prev [button_]\n soft wool\n machine wash\n"


def test_odd_records_in_both_texts():
    values = ['24"x36"', "é blue", "color", "description", "next >"]
    odd = make_product(
        "B000000001", "Warm Hat", options={"color": values}, BulletPoints=["", "two\nlines"], Description=""
    )
    shop = WebShop(make_catalogue(odd))
    shop.reset(seed=0)
    item = play(shop, "search[hat]", "click[b000000001]", 'click[24"x36"]')[0]
    # The original looks for the quoted value in an address that holds JSON: a value with quotes is never found there,
    # and one that is the name of a chosen option always is.
    assert item.startswith("You have clicked color.\nInstruction:")
    assert "[button] 24" in item
    assert shop.options == {"color": '24"x36"'}
    # The name of a sub page or button wins over an option of that name.
    assert shop.step("click[description]")[4]["page"] == "description"
    assert shop.step("click[< prev]")[4]["page"] == "item"
    assert shop.step("click[next >]")[4]["page"] == "item"
    assert shop.options == {"color": "next >"}
    assert shop.step("click[features]")[0].endswith("[button] < Prev [button_]\n \n two\nlines\n")


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


def test_reward_is_discounted_by_steps_to_the_purchase(shop):
    *_, terminated, truncated, info = play(shop, "search[hat]", "click[b000000001]", "click[blue]", "click[buy now]")
    assert (terminated, truncated) == (True, False)
    assert info["score"] == pytest.approx(2 / 3)
    assert info["discounted_score"] == pytest.approx(0.99**3 * 2 / 3)
    assert info["reward_parts"] == {
        "reward": pytest.approx(2 / 3),
        "r_type": 1.0,
        "r_att": 1.0,
        "r_option": 0.0,
        "r_price": True,
    }
    assert (info["success"], info["asin"], info["options"]) == (False, "B000000001", {"color": "blue"})
    assert (info["task_id"], info["category"], info["step"]) == ("webshop-00000", "Clothing – Men", 4)


def test_no_discount():
    shop = WebShop(make_catalogue(), discount=1.0)
    shop.reset(seed=0)
    _, reward, *_, info = play(shop, "search[hat]", "click[b000000001]", "click[red]", "click[buy now]")
    assert (reward, info["score"], info["success"]) == (1.0, 1.0, True)


def test_the_last_page_does_not_tell_the_score(shop):
    for mode in ("text", "text_rich", "compact"):
        shop = WebShop(make_catalogue(), observation=mode)
        shop.reset(seed=0)
        product = "1" if mode == "compact" else "b000000001"
        last = play(shop, "search[warm hat]", f"click[{product}]", "click[buy now]")[0]
        assert last.strip() == "Thank you for shopping with us!"


@pytest.mark.parametrize(
    "action",
    [
        *["", "   ", "hello", "search[]", "click[]", "click", "buy now", "think[hm]", "Click[b000000001]"],
        *["click[b999999999]", "click[search]", "click[< prev]", "\n", "search(hat)", "[x]", None, 3],
    ],
)
def test_unknown_actions_change_nothing(shop, action):
    before = shop.step("search[hat]")[0]
    observation, reward, terminated, truncated, info = shop.step(action)
    assert (observation, reward, terminated, truncated) == (before, 0.0, False, False)
    assert info["valid"] is False
    assert info["error"]


def test_letter_case_of_arguments_does_not_matter(shop):
    assert shop.step("search[WARM HAT]")[4]["valid"]
    assert shop.step("click[Next >]")[4]["valid"]


def test_a_search_works_on_pages_that_do_not_list_it(shop):
    assert "search[<words>]" in shop.admissible_actions()
    for action in ("search[hat]", "click[b000000001]", "click[features]"):
        assert shop.step(action)[4]["valid"] and "search[<words>]" not in shop.admissible_actions()
        *_, info = copy.deepcopy(shop).step("search[warm hat]")
        assert (info["valid"], info["page"]) == (True, "results")


def test_debug_searches_of_the_original_are_words(shop):
    observation = shop.step("search[<r>]")[0]
    assert "Total results: 0" in observation


def test_step_after_the_end_raises(shop):
    with pytest.raises(RuntimeError, match="call reset"):
        WebShop(make_catalogue()).step("search[hat]")
    play(shop, "search[hat]", "click[b000000001]", "click[buy now]")
    with pytest.raises(RuntimeError, match="over"):
        shop.step("search[hat]")


def test_step_limit():
    shop = WebShop(make_catalogue(), max_steps=3)
    shop.reset(seed=0)
    assert play(shop, "search[hat]", "nothing")[2:4] == (False, False)
    _, reward, terminated, truncated, info = shop.step("search[hat]")
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert (info["score"], info["success"]) == (0.0, False)
    shop.reset(seed=0)
    assert play(shop, "search[hat]", "click[b000000001]", "click[buy now]")[2:4] == (True, False)


def test_limit_of_searches():
    shop = WebShop(make_catalogue(), max_searches=1)
    shop.reset(seed=0)
    before = shop.step("search[warm]")[0]
    observation, *_, info = shop.step("search[straw]")
    assert (observation, info["valid"]) == (before, False)
    shop.reset(seed=0)
    assert shop.step("search[straw]")[4]["valid"]


def test_results_per_page():
    products = [make_product(f"B{number:09d}", f"Warm Hat {number}") for number in range(1, 8)]
    shop = WebShop(make_catalogue(*products), results_per_page=3, observation="text")
    shop.reset(seed=0)
    assert "B000000003" in shop.step("search[hat]")[0]
    assert shop.step("click[next >]")[0].count("Warm Hat") == 3
    assert shop.step("click[next >]")[0].count("Warm Hat") == 1


def test_compact_pages():
    shop = WebShop(make_catalogue(), observation="compact")
    assert shop.reset(seed=0)[0] == INSTRUCTION
    assert shop.step("search[warm hat]")[0] == "1 Warm Hat $12.5 | 2 Straw Hat & Cap $12.5"
    assert shop.admissible_actions() == ["click back to search", "click next >", "click 1", "click 2"]
    assert play(shop, "click[2]", "click[red]")[0] == ("Straw Hat & Cap $12.5 | color: [red] blue | size: small large")
    assert shop.step("click[features]")[0] == "soft wool | machine wash"
    assert play(shop, "click back to search", "search zebra")[0] == "nothing found"
    assert shop.step("click reviews")[4]["valid"] is False
    assert shop.system_prompt == ""


def test_plain_actions_are_for_compact_pages_only(shop):
    assert shop.step("search hat")[4]["valid"] is False
    compact = WebShop(make_catalogue(), observation="compact")
    compact.reset(seed=0)
    assert compact.admissible_actions() == ["search <words>"]
    *_, info = play(compact, "search warm hat", "click 1", "click red", "click buy now")
    assert (info["score"], info["valid"]) == (1.0, True)
    compact.reset(seed=0)
    assert compact.step("think about it")[4]["error"] == "there is no action 'think'; use search[words] or click[name]"


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
        ({"catalogue": "small", "seed": "a"}, "seed must be a whole number, got 'a'"),
        ({"catalogue": "small", "seed": 0.5}, "seed must be a whole number, got 0.5"),
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
        with pytest.raises(ValueError, match="task must be a Task or its id, not"):
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
