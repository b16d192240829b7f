"""Records of the original's files, and errors that name the faulty one."""

import json
import random

import pytest

from boost_trl.environments.webshop import (
    Catalogue,
)
from boost_trl.environments.webshop.records import draw_price_bound, parse_pricing

from .original_files import ATTRIBUTES, BY_PEOPLE, ITEMS


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
