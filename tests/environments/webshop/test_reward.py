"""The reward against hand-worked cases and brute force. Facts about the original are those of its own test suite."""

import pytest

from boost_trl.environments.webshop import purchase_reward
from boost_trl.environments.webshop.reward import type_reward


def make_goal(**changes):
    goal = {
        "name": "Green Cotton Shirt",
        "query": "shirts",
        "product_category": "Clothing › Men › Shirts",
        "attributes": ["tea tree", "essential oils", "natural ingredients"],
        "goal_options": ["grey", "xl"],
        "price_upper": 40.0,
    }
    return goal | changes


def make_product(**changes):
    product = {
        "name": "Green Cotton Shirt",
        "query": "shirts",
        "product_category": "Clothing › Men › Shirts",
        "Title": "",
        "Description": "",
        "BulletPoints": [],
        "Attributes": ["tea tree", "essential oil", "natural ingredients"],
    }
    return product | changes


def attribute_share(attributes, **product):
    return purchase_reward(make_goal(attributes=attributes), make_product(**product), {}, 1)["r_att"]


def option_share(wanted, *chosen):
    options = {f"option {number}": value for number, value in enumerate(chosen)}
    return purchase_reward(make_goal(goal_options=wanted), make_product(), options, 1)["r_option"]


def test_everything_met_is_one():
    parts = purchase_reward(make_goal(), make_product(), {"color": "grey", "size": "xl"}, 35)
    assert parts == {"reward": 1.0, "r_type": 1.0, "r_att": 1.0, "r_option": 1.0, "r_price": True}


def test_partial_purchase_by_hand():
    # Attributes 2 of 3, options 1 of 2, price missed: 3 of 6 requirements.
    product = make_product(Attributes=["essential oil", "natural ingredients"])
    parts = purchase_reward(make_goal(), product, {"color": "grey", "size": "small"}, 40.01)
    assert parts["reward"] == pytest.approx(3 / 6)
    assert (parts["r_att"], parts["r_option"], parts["r_price"]) == (pytest.approx(2 / 3), 0.5, False)


def test_type_multiplies_the_rest():
    # One of eleven nouns in common: .09 < .1, although query and category agree.
    name = "Alpha Beta Gamma Delta Epsilon Zeta Eta Theta Iota Kappa Shirt"
    parts = purchase_reward(make_goal(name=name), make_product(), {"color": "grey", "size": "xl"}, 1)
    assert parts["r_type"] == 0.1
    assert parts["reward"] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("attributes", "product", "share"),
    [
        (["tea tree", "essential oils"], {"Attributes": ["essential oil"]}, 1 / 2),
        (["essential oils"], {"Attributes": [], "BulletPoints": ["It has Essential Oils and smells"]}, 1),
        (["natural ingredients"], {"Attributes": [], "Description": "made with natural ingredients"}, 1),
        (["long lasting"], {"Attributes": [], "Title": "Long Lasting Perfume"}, 1),
        (["Long Lasting"], {"Attributes": [], "Title": "Long Lasting Perfume"}, 0),  # the needle keeps its case
        (
            ["long lasting"],
            {"Attributes": [], "BulletPoints": "long lasting"},
            0,
        ),  # a bare string is taken letter-wise
        (["tea tree", "tea tree"], {"Attributes": ["tea tree"]}, 1),
        (["tea tree"], {"Attributes": ["tea bag", "earl gray"]}, 0),
        (["easy clean"], {"Attributes": ["easy to clean"]}, 1),
    ],
)
def test_attributes(attributes, product, share):
    assert attribute_share(attributes, **product) == pytest.approx(share)


@pytest.mark.parametrize(
    ("wanted", "chosen", "share"),
    [
        (["grey", "XL", "pack of 12"], ["pack of 12", "grey", "XL"], 1),
        (["grey", "XL", "pack of 12"], ["pack of 12", "blue", "XL"], 2 / 3),
        (["cool powder snow"], ["powder snow"], 1),
        (["large"], ["x-large"], 1),
        (["x-large"], ["xx-large"], 1),
        (["4 ounce (pack of 2)"], ["4 ounce (pack of 1)"], 1),
        (["light blue"], ["dark blue"], 1),  # both are "blue", the first colour word that they contain
        (["rose red"], ["wine red"], 1),
        (["tangerine"], ["tan"], 1),
        (["dark red"], ["red"], 0),  # but "dark" comes before "red"
        (["red", "wine red"], ["red"], 1),  # one value may answer two wishes
        (["goal 1"], [], 0),
        ({"size": "x-large"}, ["xx-large"], 0),  # a dict is compared by its printed pairs
        ({"size": "x-large"}, ["x-large"], 1),
        ({"color": "red"}, ["wine red"], 1),
    ],
)
def test_options(wanted, chosen, share):
    assert option_share(wanted, *chosen) == pytest.approx(share)


def test_no_options_wanted():
    parts = purchase_reward(make_goal(goal_options=[]), make_product(), {"color": "red"}, 1)
    assert parts["r_option"] is None
    assert parts["reward"] == 1.0


@pytest.mark.parametrize(("bound", "price", "within"), [(40, 40, True), (40, 40.5, False), (0, 10**9, True)])
def test_price(bound, price, within):
    assert purchase_reward(make_goal(price_upper=bound), make_product(), {}, price)["r_price"] is within


@pytest.mark.parametrize(
    ("category", "query", "name", "expected"),
    [
        ("b › c › a", "other", "Cotton Shirt", 1.0),
        ("a › d › b", "other", "Cotton Shirt", 1.0),
        ("d › e › f", "q", "Cotton Shirt", 1.0),
        ("a › a › d", "other", "One Two Three Four Five Shirt", 1.0),
        ("a › b › c", "q", "Nothing Alike", 0.0),
    ],
)
def test_type(category, query, name, expected):
    goal = {"name": "Green Cotton Shirt", "query": "q", "product_category": "a › b › c"}
    product = {"name": name, "query": query, "product_category": category}
    assert type_reward(goal, product) == expected


def test_type_of_another_kind_is_half():
    # One noun of six in common: .17 is neither a match (> .2) nor nearly nothing (< .1).
    goal = {"name": "Green Cotton Shirt Slim Soft Fit", "query": "q", "product_category": "a › b"}
    assert type_reward(goal, {"name": "Steel Kettle Soft", "query": "k", "product_category": "c › d"}) == 0.5


def test_title_score_counts_distinct_over_repeated_nouns():
    # 1 distinct noun in common, 11 with repetitions: a title is not even of its own kind.
    goal = {"name": " ".join(["Cable"] * 11), "query": "q", "product_category": "a › b"}
    assert type_reward(goal, goal) == 0.1


def test_goal_without_nouns_falls_back_to_query_and_category():
    goal = {"name": "", "query": "q", "product_category": "a › b"}
    product = {"name": "Shirt", "query": "q", "product_category": "c › d"}
    assert type_reward(goal, product) == 1.0
    assert type_reward(goal, product | {"query": "other"}) == 0.5


def test_own_nouns_can_be_given():
    parts = purchase_reward(make_goal(), make_product(name="x"), {}, 1, nouns=lambda title: ("same",))
    assert parts["r_type"] == 1.0


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ((make_goal(attributes=[]), make_product()), "has no attributes"),
        (({"name": "x"}, make_product()), "the goal record lacks query, product_category"),
        ((make_goal(), {"name": "x"}), "the product record lacks query"),
    ],
)
def test_bad_records(record, message):
    with pytest.raises(ValueError, match=message):
        purchase_reward(*record, {}, 1)
