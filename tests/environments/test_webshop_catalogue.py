"""Generated shops, the original's files, and the cache."""

import ast
import json
import random
from pathlib import Path

import pytest

from boost_trl.environments.webshop import (
    Catalogue,
    WebShop,
    cache,
    generate_catalogue,
    generate_small_catalogue,
    purchase_reward,
)
from boost_trl.environments.webshop.cache import load_catalogue, read_catalogue, write_catalogue
from boost_trl.environments.webshop.records import category_label, draw_price_bound, parse_pricing


# Table 4 of the paper, as printed.
PAPER_CATEGORIES = """
Automotive – Motorcycle & Powersports; Baby Products – Nursery; Beauty & Personal Care – Foot, Hand & Nail Care;
Beauty & Personal Care – Fragrance; Beauty & Personal Care – Hair Care; Beauty & Personal Care – Makeup;
Beauty & Personal Care – Oral Care; Beauty & Personal Care – Personal Care;
Beauty & Personal Care – Shave & Hair Removal; Beauty & Personal Care – Skin Care;
Beauty & Personal Care – Tools & Accessories; Cell Phones & Accessories – Accessories;
Cell Phones & Accessories – Cases, Holsters & Sleeves; Clothing, Shoes & Jewelry – Men;
Clothing, Shoes & Jewelry – Novelty & More; Clothing, Shoes & Jewelry – Sport Specific Clothing;
Clothing, Shoes & Jewelry – Women; Electronics – Accessories & Supplies; Electronics – Camera & Photo;
Electronics – Car & Vehicle Electronics; Electronics – Computers & Accessories; Electronics – Home Audio;
Electronics – Portable Audio & Video; Grocery & Gourmet Food – Deli & Prepared Foods;
Grocery & Gourmet Food – Frozen; Grocery & Gourmet Food – Produce; Grocery & Gourmet Food – Snacks & Sweets;
Home & Kitchen – Bedding; Home & Kitchen – Furniture; Home & Kitchen – Home Décor Products;
Home & Kitchen – Kitchen & Dining; Home & Kitchen – Wall Art; Office Products – Office & School Supplies;
Office Products – Office Furniture & Lighting; Sports & Outdoors – Sports;
Tools & Home Improvement – Lighting & Ceiling Fans
"""


@pytest.fixture(scope="module")
def catalogue():
    return generate_catalogue(0, 3700, 8)


def own_options(goal, product):
    return {
        name: value for name, values in product["options"].items() for value in values if value in goal["goal_options"]
    }


def test_categories_are_those_of_the_paper_and_one_of_ours(catalogue):
    printed = {" ".join(label.split()) for label in PAPER_CATEGORIES.split(";")}
    assert len(printed) == 36
    sold = {category_label(product["product_category"]) for product in catalogue.products}
    wanted = {category_label(goal["product_category"]) for goal in catalogue.goals}
    assert sold == wanted == printed | {"Grocery & Gourmet Food – Beverages"}


def test_every_goal_is_met_by_its_own_product(catalogue):
    assert len(catalogue.goals) == 37 * 8
    for goal in catalogue.goals:
        product = catalogue.by_asin[goal["asin"]]
        parts = purchase_reward(goal, product, own_options(goal, product), catalogue.prices[goal["asin"]])
        assert parts["reward"] == 1.0, goal


def test_goals_have_near_misses_of_their_own_kind_among_the_hits(catalogue):
    near = []
    for goal in catalogue.goals:
        misses = 0
        for asin in catalogue.index.search(goal["instruction_text"]):
            product = catalogue.by_asin[asin]
            parts = purchase_reward(goal, product, own_options(goal, product), catalogue.prices[asin])
            misses += parts["r_type"] == 1.0 and 0 < parts["reward"] < 1
        near.append(misses)
    assert min(near) >= 5


def test_most_goals_are_found_by_their_words(catalogue):
    ranks = [catalogue.index.search(goal["instruction_text"]) for goal in catalogue.goals]
    found = [goal["asin"] in hits for goal, hits in zip(catalogue.goals, ranks)]
    first_page = [goal["asin"] in hits[:10] for goal, hits in zip(catalogue.goals, ranks)]
    assert sum(found) / len(found) > 0.85
    assert 0.5 < sum(first_page) / len(first_page) < 0.95


def test_price_bounds(catalogue):
    for goal in catalogue.goals:
        price = catalogue.prices[goal["asin"]]
        if goal["price_upper"] < 1000:
            assert price < goal["price_upper"] <= price + 40
            assert goal["instruction_text"].endswith(f", and price lower than {goal['price_upper']:.2f} dollars")


def test_products_look_like_products(catalogue):
    lengths = [len(product["Title"].split()) for product in catalogue.products]
    assert min(lengths) >= 8
    assert max(lengths) <= 28
    assert len({product["asin"] for product in catalogue.products}) == len(catalogue.products)
    assert all(len(product["asin"]) == 10 for product in catalogue.products)
    ranged = sum(" to " in product["Price"] for product in catalogue.products) / len(catalogue.products)
    assert 0.1 < ranged < 0.2
    for product in catalogue.products[:200]:
        assert all(value == value.lower() for values in product["options"].values() for value in values)


def test_a_larger_shop_begins_with_the_smaller(catalogue):
    smaller = generate_catalogue(0, 370, 5)
    assert smaller.products == catalogue.products[:370]
    assert generate_catalogue(1, 370, 5).products != smaller.products


def test_too_many_goals():
    with pytest.raises(ValueError, match="60 goals in 37 categories"):
        generate_catalogue(0, 1000)


def test_small_shop():
    small = generate_small_catalogue()
    assert (len(small.products), len(small.goals)) == (288, 480)
    for goal in small.goals:
        product = small.by_asin[goal["asin"]]
        assert purchase_reward(goal, product, own_options(goal, product), small.prices[goal["asin"]])["reward"] == 1.0
    words = {word for goal in small.goals for word in goal["instruction_text"].split()}
    assert len(words) < 70
    assert generate_small_catalogue().fingerprint == small.fingerprint != generate_small_catalogue(1).fingerprint


def test_an_empty_shop_is_refused():
    with pytest.raises(ValueError, match="products and goals, got 0 and 0"):
        Catalogue([], {}, [])


@pytest.mark.parametrize(
    ("text", "prices"),
    [
        ("$12.99", [12.99]),
        ("$1,299.00", [1299.0]),
        ("$12.99$19.99", [12.99, 19.99]),
        ("$5.0 - $7.5$9", [5.0, 7.5]),
        ("", [100.0]),
        (None, [100.0]),
        ("free", [100.0]),
    ],
)
def test_pricing(text, prices):
    assert parse_pricing(text) == prices


def test_price_bound_by_the_rule():
    bounds = {draw_price_bound(25.0, random.Random(seed))[0] for seed in range(200)}
    assert bounds == {40.0, 50.0, 60.0}  # the larger of two of 30, 40, 50, 60
    assert {draw_price_bound(30.0, random.Random(seed))[0] for seed in range(200)} == {50.0, 60.0, 70.0}
    assert draw_price_bound(975.0, random.Random(0))[1] == ", and price lower than 990.00 dollars"
    assert draw_price_bound(985.0, random.Random(0)) == (1_000_000, "")


ITEMS = [
    {
        "asin": "B00000000A",
        "name": "Soft Hat",
        "category": "fashion",
        "query": " Hats ",
        "product_category": "Clothing › Men › Hats",
        "full_description": "warm",
        "small_description": ["one", "two"],
        "pricing": "$10.00$20.00",
        "customization_options": {
            "Color": [{"value": " Red/Blue ", "image": None}, {"value": "Green"}],
            "Size": None,
            "Style": [{"value": "Plain"}],
        },
        "images": ["x"],
    },
    {"asin": "B00000000A", "name": "Duplicate"},
    {"asin": "nan", "name": "None"},
    {"asin": "B00000000TOOLONG", "name": "Long"},
    {
        "asin": "B00000000B",
        "name": "Steel Kettle",
        "category": "garden",
        "query": "kettles",
        "product_category": "Home › Kitchen",
        "full_description": None,
        "small_description": "single",
        "pricing": None,
        "customization_options": None,
        "images": ["x"],
    },
    {
        "asin": "B00000000C",
        "name": "Wool Scarf",
        "category": "fashion",
        "query": "scarfs",
        "product_category": "Clothing › Women › Scarfs",
        "full_description": "",
        "small_description": [],
        "pricing": "$57.10",
        "customization_options": {},
        "images": ["x"],
    },
]
ATTRIBUTES = {
    "B00000000A": {
        "attributes": ["soft"],
        "instruction": "Find me soft hats",
        "instruction_attributes": ["soft"],
    },
    "B00000000C": {"attributes": ["wool", "warm"], "instruction": "Find me wool", "instruction_attributes": ["wool"]},
}
BY_PEOPLE = {
    "B00000000A": [
        {"instruction": "i want a hat.", "instruction_attributes": ["soft"], "instruction_options": ["green"]},
        {"instruction": "skipped", "instruction_attributes": [], "instruction_options": []},
    ],
    "B00000000B": [{"instruction": "a kettle", "instruction_attributes": ["steel"], "instruction_options": []}],
}


@pytest.fixture
def files(tmp_path):
    paths = []
    for name, content in (("items", ITEMS), ("attributes", ATTRIBUTES), ("people", BY_PEOPLE)):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(content), encoding="utf-8")
    return paths


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


HUMAN = {"instruction": "a hat", "instruction_attributes": ["soft"], "instruction_options": []}
FORMULA = {"instruction": "Find me hats", "instruction_attributes": ["soft"], "attributes": ["soft"]}


def edited(items=None, attributes=None, people=None):
    """The three files' contents with changes to the first product."""
    first = {**ITEMS[0], **(items or {})}
    attributes = ATTRIBUTES if attributes is None else {**ATTRIBUTES, "B00000000A": attributes}
    people = BY_PEOPLE if people is None else {**BY_PEOPLE, "B00000000A": people}
    return [[first, *ITEMS[1:]], attributes, people]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (edited(items={"pricing": "$"}), r"items.json: item 0 .*pricing '\$' is no price"),
        (edited(items={"pricing": "$1.2.3"}), r"items.json: item 0 .*pricing '\$1.2.3' is no price"),
        (edited(items={"pricing": 12}), "items.json: item 0 .*pricing is 12"),
        (edited(items={"small_description": None}), "items.json: item 0 .*small_description is None"),
        (edited(items={"small_description": [None]}), "items.json: item 0 .*small_description is None"),
        (edited(items={"name": None}), "items.json: item 0 .*name is None"),
        (edited(items={"product_category": None}), "items.json: item 0 .*product_category is None"),
        (edited(items={"full_description": 7}), "items.json: item 0 .*full_description is 7"),
        (edited(items={"customization_options": {"Color": [{"value": 3}]}}), "items.json: item 0 "),
        (edited(items={"customization_options": {"Color": [{}]}}), "items.json: item 0 .*it has no 'value'"),
        (edited(attributes=[]), "attributes.json: what is said of B00000000A"),
        (edited(attributes={"attributes": "soft"}), "attributes.json: .*B00000000A .*attributes is 'soft'"),
        (edited(people={"instruction": "a hat"}), "people.json: .*B00000000A .*annotations is {"),
        (edited(people=[{"instruction": "a hat"}]), "people.json: .*B00000000A .*it has no 'instruction_attributes'"),
        (edited(people=[HUMAN | {"instruction": 5}]), "people.json: .*B00000000A .*instruction is 5"),
        (
            edited(people=[HUMAN | {"instruction_options": [5]}]),
            "people.json: .*B00000000A .*instruction_options is 5",
        ),
        (edited(people=[5]), "people.json: .*B00000000A"),
    ],
)
def test_bad_records_are_named_when_they_are_read(files, content, message):
    for file, new in zip(files, content):
        file.write_text(json.dumps(new), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Catalogue.from_webshop(*files)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"instruction": "Find me hats"}, "it has no 'instruction_attributes'"),
        (FORMULA | {"instruction_attributes": []}, "no instruction_attributes"),
        (FORMULA | {"instruction": 5}, "instruction is 5"),
        (FORMULA | {"instruction_attributes": "soft"}, "instruction_attributes is 'soft'"),
    ],
)
def test_bad_formulaic_annotations_are_named(files, annotation, message):
    files[1].write_text(json.dumps(edited(attributes=annotation)[1]))
    with pytest.raises(ValueError, match=f"attributes.json: .*B00000000A .*{message}"):
        Catalogue.from_webshop(*files[:2])


@pytest.mark.parametrize("number", [-1, 0])
def test_too_few_products(files, number):
    with pytest.raises(ValueError, match=f"num_products must be at least 1, got {number}"):
        Catalogue.from_webshop(*files, num_products=number)


def test_missing_file(files, tmp_path):
    with pytest.raises(ValueError, match="cannot read WebShop data from .*nowhere.json"):
        Catalogue.from_webshop(tmp_path / "nowhere.json", *files[1:])


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path))
    load_catalogue.cache_clear()
    yield tmp_path
    load_catalogue.cache_clear()


def test_what_is_read_is_what_was_written(tmp_path):
    written = generate_small_catalogue()
    write_catalogue(written, tmp_path / "shop")
    read = read_catalogue(tmp_path / "shop")
    assert (read.products, read.prices, read.goals) == (written.products, written.prices, written.goals)
    assert read.fingerprint == written.fingerprint
    assert read.index.search("red shirt") == written.index.search("red shirt") != []
    assert not any(path.suffix in (".pkl", ".pickle") for path in tmp_path.rglob("*"))


def test_the_second_process_reads_the_cache(empty_cache, monkeypatch):
    first = WebShop("small")
    assert (first.observation_mode, first.max_steps, first.results_per_page) == ("compact", 8, 3)
    load_catalogue.cache_clear()
    monkeypatch.setattr(cache, "_generate", lambda *_: pytest.fail("made again"))
    second = WebShop("small")
    assert second.catalogue is not first.catalogue
    assert second.tasks() == first.tasks()
    assert WebShop("small").catalogue is second.catalogue


@pytest.mark.parametrize("damage", ["catalogue.json", "index.npz"])
def test_a_damaged_cache_is_made_again(empty_cache, damage, caplog):
    fingerprint = load_catalogue("small").fingerprint
    (path,) = empty_cache.rglob(damage)
    path.write_bytes(path.read_bytes()[:100])
    load_catalogue.cache_clear()
    assert load_catalogue("small").fingerprint == fingerprint
    assert "made again" in caplog.text
    load_catalogue.cache_clear()
    caplog.clear()
    assert load_catalogue("small").fingerprint == fingerprint
    assert not caplog.text


def imported_modules(name):
    """This module of the package's folder and what it imports of the folder, however far."""
    found, left = set(), [name]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            tree = ast.parse((Path(cache.__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
            left += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1]
    return found


def test_the_cache_is_as_old_as_the_code_that_makes_shops():
    assert set(cache._SOURCES) == imported_modules("cache")
    assert "noise" not in cache._SOURCES


def test_shops_of_older_code_are_removed(empty_cache, monkeypatch):
    load_catalogue("small")
    load_catalogue("small", 1)
    before = {path.name for path in (empty_cache / "webshop").iterdir()}
    load_catalogue.cache_clear()
    monkeypatch.setattr(cache, "_source_hash", lambda: "newer")
    load_catalogue("small")
    after = {path.name for path in (empty_cache / "webshop").iterdir()}
    assert after - before == {"small-0-newer"} and len(before - after) == 1
    assert not any(name.startswith("small-0-") for name in after & before)


def test_without_a_writable_cache_the_shop_still_opens(empty_cache, monkeypatch, caplog):
    blocked = empty_cache / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("BOOST_TRL_CACHE", str(blocked))
    assert len(load_catalogue("small").goals) == 480
    assert "cannot be cached" in caplog.text
