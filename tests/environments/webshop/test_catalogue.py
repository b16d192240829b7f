"""Shops of the original's files."""

import random

import pytest

from boost_trl.environments.webshop import (
    Catalogue,
    WebShop,
    generate_catalogue,
)


@pytest.fixture(scope="module")
def catalogue():
    return generate_catalogue(0, 3700, 8)


def test_an_empty_shop_is_refused():
    with pytest.raises(ValueError, match="products and goals, got 0 and 0"):
        Catalogue([], {}, [])


def original_draws(seed, goals_of):
    """Prices and bounds as a process of the original draws them from its global generator."""
    rng = random.Random(seed)
    prices = {"B00000000A": rng.uniform(10.0, 20.0), "B00000000B": 100.0, "B00000000C": 57.1}
    bounds = []
    for asin in goals_of:
        candidates = [10.0 * step for step in range(1, 100) if 10.0 * step > prices[asin]][:4]
        bounds.append(sorted(rng.sample(candidates, 2))[1])
    return prices, bounds


def test_products_of_the_original(files):
    catalogue = Catalogue.from_webshop(*files)
    hat, kettle, scarf = catalogue.products
    assert (hat["asin"], kettle["asin"], scarf["asin"]) == ("B00000000A", "B00000000B", "B00000000C")
    assert hat["options"] == {"color": ["red | blue", "green"], "style": ["plain"]}
    assert (hat["query"], hat["Price"], hat["BulletPoints"]) == ("hats", "$10.0 to $20.0", ["one", "two"])
    assert (kettle["Price"], kettle["Attributes"], kettle["BulletPoints"]) == ("$100.0", ["DUMMY_ATTR"], ["single"])
    assert (scarf["Price"], scarf["Title"], scarf["Description"]) == ("$57.1", "Wool Scarf", "")
    assert len(Catalogue.from_webshop(*files, num_products=4).products) == 1


@pytest.mark.parametrize("seed", [0, 7])
def test_human_goals_of_the_original(files, seed):
    catalogue = Catalogue.from_webshop(*files, seed=seed)
    prices, (hat_bound, kettle_bound) = original_draws(seed, ["B00000000A", "B00000000B"])
    assert catalogue.prices == prices
    expected = [
        (f"i want a hat, and price lower than {hat_bound:.2f} dollars", hat_bound, ["green"]),
        (f"a kettle, and price lower than {kettle_bound:.2f} dollars", kettle_bound, []),
    ]
    random.Random(233).shuffle(expected)
    found = [(goal["instruction_text"], goal["price_upper"], goal["goal_options"]) for goal in catalogue.goals]
    assert found == expected


def test_formulaic_goals_of_the_original(files):
    catalogue = Catalogue.from_webshop(*files[:2], seed=3)
    _, (hat_bound, scarf_bound) = original_draws(3, ["B00000000A", "B00000000C"])
    texts = {goal["instruction_text"]: goal for goal in catalogue.goals}
    tail = f", and price lower than {hat_bound:.2f} dollars"
    assert set(texts) == {
        f"Find me soft hats with color: red | blue, and style: plain{tail}",
        f"Find me soft hats with color: green, and style: plain{tail}",
        f"Find me wool, and price lower than {scarf_bound:.2f} dollars",
    }
    assert texts[f"Find me soft hats with color: green, and style: plain{tail}"]["goal_options"] == {
        "color": "green",
        "style": "plain",
    }
    # "soft" is in two goals, "wool" in one.
    assert sorted(goal["weight"] for goal in catalogue.goals) == [0.5, 0.5, 1.0]


def test_a_shop_of_the_original_is_playable(files):
    shop = WebShop(Catalogue.from_webshop(*files))
    hat = next(task for task in shop.tasks() if "hat" in task.prompt)
    assert hat.category == "Clothing – Men"
    shop.reset(task=hat)
    for action in ("search[hat red/blue]", "click[b00000000a]", "click[green]", "click[buy now]"):
        *_, info = shop.step(action)
    assert info["score"] == 1.0


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (0, "{}", "items.json holds a JSON dict, expected a list"),
        (0, "not json", "cannot read WebShop data from .*items.json"),
        (0, '[{"asin": "B00000000A"}]', "item 0 is not a WebShop product"),
        (0, "[7]", "item 0 is not a WebShop product"),
        (1, "[]", "attributes.json holds a JSON list, expected a dict"),
    ],
)
def test_bad_files(files, file, content, message):
    files[file].write_text(content)
    with pytest.raises(ValueError, match=message):
        Catalogue.from_webshop(*files)


@pytest.mark.parametrize("number", [-1, 0])
def test_too_few_products(files, number):
    with pytest.raises(ValueError, match=f"`num_products` must be at least 1, got {number}"):
        Catalogue.from_webshop(*files, num_products=number)


def test_missing_file(files, tmp_path):
    with pytest.raises(ValueError, match="cannot read WebShop data from .*nowhere.json"):
        Catalogue.from_webshop(tmp_path / "nowhere.json", *files[1:])
