"""The reward against hand-worked cases and brute force. Facts about the original are those of its own test suite."""

import random
import sys
from types import SimpleNamespace

import pytest

from boost_trl.environments.webshop import purchase_reward, spacy_nouns
from boost_trl.environments.webshop.reward import type_reward
from boost_trl.environments.webshop.text import COLOURS, colour_word, fuzzy_equal, title_nouns


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
    ("text", "word"),
    [
        ("", ""),
        ("black forest", "black"),
        ("violet lavender", "lavender"),
        ("steelivy fuchsia", "fuchsia"),
        ("123alabaster", "alabaster"),
        ("webshop", "webshop"),
        ("shredded", "red"),
    ],
)
def test_colour_words(text, word):
    assert colour_word(text) == word


def test_colours_are_tried_in_alphabetical_order():
    assert len(COLOURS) == 102
    assert COLOURS == sorted(COLOURS)


def test_title_nouns():
    title = 'KAIX Women\'s Long-Sleeve T/Shirt with 2 Pockets, (Pack of 3) for the Gym & 24"x36"'
    assert title_nouns(title) == ("kaix", "women", "long", "sleeve", "t", "shirt", "pockets", "pack", "gym")


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


def longest_common_subsequence(left, right):
    row = [0] * (len(right) + 1)
    for a in left:
        previous = 0
        for at, b in enumerate(right, 1):
            previous, row[at] = row[at], previous + 1 if a == b else max(row[at], row[at - 1])
    return row[-1]


def token_set_ratio(left, right):
    """The definition: the best of three comparisons between common and remaining words, by common subsequence."""

    def ratio(a, b):
        return 100 * 2 * longest_common_subsequence(a, b) / (len(a) + len(b)) if a or b else 100.0

    def words(text):
        return set("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())

    left, right = words(left), words(right)
    if not left or not right:
        return 0
    common = " ".join(sorted(left & right))
    if common and (left <= right or right <= left):
        return 100
    one, other = (" ".join([common, *sorted(rest)]).strip() for rest in (left - right, right - left))
    scores = [ratio(one, other)] + ([ratio(common, one), ratio(common, other)] if common else [])
    return round(max(scores))


def test_fuzzy_equality_by_brute_force():
    rng = random.Random(0)
    words = (
        "easy clean cleaning to machine washable wash queen size x-large xx large 4 ounce oz pack (of 2) red".split()
    )
    verdicts = []
    for _ in range(3000):
        left = " ".join(rng.choices(words, k=rng.randint(1, 4)))
        right = " ".join(rng.choices(words, k=rng.randint(1, 4)))
        if rng.random() < 0.5:
            at = rng.randrange(len(left))
            right = left[:at] + rng.choice(["", "s", "-", "x"]) + left[at + 1 :]
        expected = token_set_ratio(left, right) > 85
        verdicts.append(expected)
        assert fuzzy_equal(left, right) is expected, (left, right)
    assert 300 < sum(verdicts) < 2700


@pytest.mark.parametrize(("left", "right", "equal"), [("café", "caf", True), ("", "", False), ("!!", "!!", False)])
def test_fuzzy_equality_of_odd_text(left, right, equal):
    assert fuzzy_equal(left, right) is equal


def fake_spacy(monkeypatch, load):
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=load))


def test_nouns_by_a_tagger(monkeypatch):
    tags = {"Soft": "ADJ", "Wool": "PROPN", "Hat": "NOUN", "hat": "NOUN"}
    seen = []

    def load(name, exclude):
        def tag(title):
            seen.append(title)
            return [SimpleNamespace(text=word, pos_=tags[word]) for word in title.split()]

        return tag

    fake_spacy(monkeypatch, load)
    nouns = spacy_nouns()
    assert nouns("Soft Wool Hat hat") == nouns("Soft Wool Hat hat") == ("wool", "hat", "hat")
    assert len(seen) == 1


def test_no_tagger(monkeypatch):
    def load(name, exclude):
        raise OSError

    fake_spacy(monkeypatch, load)
    with pytest.raises(ValueError, match="spaCy has no pipeline 'nowhere'"):
        spacy_nouns("nowhere")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ImportError, match="webshop-spacy"):
        spacy_nouns()
