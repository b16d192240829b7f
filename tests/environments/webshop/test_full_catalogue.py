"""The generated full shop."""

import pytest

from boost_trl.environments.webshop import (
    generate_catalogue,
    purchase_reward,
)
from boost_trl.environments.webshop.records import category_label

from .goals import own_options


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
