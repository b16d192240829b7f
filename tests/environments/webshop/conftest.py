"""Fixtures of several files: the original's stand-ins and files, played episodes, a shop of two hats."""

import json

import pytest

from boost_trl.environments.webshop import WebShop, generate_catalogue, generate_small_catalogue, offline_trajectories
from boost_trl.environments.webshop.scripted_policies import STRATEGIES

from .hats import make_catalogue
from .original_files import ATTRIBUTES, BY_PEOPLE, ITEMS
from .original_webshop import AgentGymServer, OriginalSite


@pytest.fixture(scope="module")
def odd_catalogue():
    catalogue = generate_catalogue(0, 370, 5)
    odd = ["a & b <c>", '24"x36"', "it's", "50% off #2?", "é + blue", "red | blue"]
    for number, product in enumerate(catalogue.products):
        if number % 2:
            product["options"] = {"type": odd[: 2 + number % 5], **product["options"]}
            product["Title"] += ' & <More> "quoted"'
        if number % 3 == 0:
            product["BulletPoints"] = ["", " spaced ", "two\nlines & <b>bold</b>"]
        if number % 5 == 0:
            product["Description"] = ""
    return catalogue


@pytest.fixture(scope="module")
def site(odd_catalogue):
    with OriginalSite(odd_catalogue) as site:
        yield site


@pytest.fixture
def agent_gym(odd_catalogue):
    with AgentGymServer(odd_catalogue) as server:
        yield server


@pytest.fixture(scope="session")
def shops():
    return {
        "full": WebShop(generate_catalogue(0, 3700, 12)),
        "text": WebShop(generate_catalogue(0, 370, 5), observation="text"),
        "small": WebShop(generate_small_catalogue(), observation="compact", results_per_page=3, max_steps=8),
    }


@pytest.fixture(scope="session")
def rows(shops):
    return {
        name: offline_trajectories(shop, 500, seed=0, mix=dict.fromkeys(STRATEGIES, 1)) for name, shop in shops.items()
    }


@pytest.fixture
def files(tmp_path):
    paths = []
    for name, content in (("items", ITEMS), ("attributes", ATTRIBUTES), ("people", BY_PEOPLE)):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(content), encoding="utf-8")
    return paths


@pytest.fixture
def shop():
    shop = WebShop(make_catalogue())
    shop.reset(seed=0)
    return shop
