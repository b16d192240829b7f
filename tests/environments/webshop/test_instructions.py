"""Generated requests by their goals, and beside those that people wrote (needs the data named by BOOST_TRL_DATA)."""

import gzip
import json
import os
import re
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest

from boost_trl.environments.webshop import generate_catalogue
from boost_trl.environments.webshop.search import analyse


DATA = Path(os.environ.get("BOOST_TRL_DATA", "../shared/data"))


needs_people = pytest.mark.skipif(
    not (DATA / "webshop_human_goals.json.gz").exists(), reason="needs BOOST_TRL_DATA with people's WebShop goals"
)


def read(name):
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def people():
    return read("webshop_human_goals.json.gz")


@pytest.fixture(scope="module")
def catalogue():
    return generate_catalogue(0, 3700, 20)


@pytest.fixture(scope="module")
def ours(catalogue):
    return [goal["instruction_text"].split(", and price lower")[0] for goal in catalogue.goals]


def test_requests_name_what_their_goal_asks_for(catalogue):
    for goal in catalogue.goals:
        text = goal["instruction_text"]
        assert all(value in text for value in goal["goal_options"]), goal
        for attribute in goal["attributes"]:
            assert all(word in re.split(r"[\s,-]+", text) for word in attribute.split()), goal


@needs_people
def test_length(people, ours):
    lengths, theirs = ([len(text.split()) for text in texts] for texts in (ours, people))
    assert abs(mean(lengths) - mean(theirs)) < 2.5


def test_lower_case_without_apostrophes(ours):
    assert all(text == text.lower() and "'" not in text for text in ours)


@needs_people
def test_openings(people, ours):
    def shares(texts):
        counts = Counter(" ".join(text.split()[:2]) for text in texts)
        return {opening: count / len(texts) for opening, count in counts.items()}

    theirs, own = shares(people), shares(ours)
    for opening in ("i am", "im looking", "i would", "i need", "i want"):
        assert abs(theirs[opening] - own[opening]) < 0.12, opening


@needs_people
def test_vocabulary(people, ours):
    known = {token for text in people for token in analyse(text)}
    tokens = [token for text in ours for token in analyse(text) if re.fullmatch("[a-z]+", token)]
    assert mean(token in known for token in tokens) > 0.97


@needs_people
def test_peoples_queries_find_something(catalogue):
    queries = [query for queries in read("webshop_goal_query_map.json.gz").values() for query in queries]
    found = [len(catalogue.index.search(query)) for query in queries[:300]]
    assert mean(count >= 10 for count in found) > 0.9
