"""What docs/webshop.md shows: its code runs, and its games are played as printed."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from boost_trl.environments.base import make_env
from boost_trl.environments.webshop import Catalogue, WebShopGym

from .original_webshop import OriginalGym


PAGE = Path(__file__).parents[3] / "docs" / "webshop.md"


FIRST, SERVERS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def shopping(conversations):
    """Searches, opens the first hit and buys it."""
    replies = []
    for messages in conversations:
        listed = re.search(r"\[button\] (B0\w{8}) ", messages[-1]["content"])
        first = sum(message["role"] == "assistant" for message in messages) == 0
        replies.append("search[soft hat]" if first else f"click[{listed[1]}]" if listed else "click[Buy Now]")
    return replies


def test_the_first_example_runs():
    names = {"policy": shopping}
    # A scripted shopper for the language model, and fewer games.
    code = FIRST.replace("(model, tokenizer)", "policy").replace("2000", "60")
    assert "policy" in code and "60" in code
    *statements, evaluation = code.strip().splitlines()
    exec(compile("\n".join(statements), str(PAGE), "exec"), names)
    results = eval(evaluation, names)
    assert len(names["pool"]) == 60 and len(names["env"].catalogue.products) == 10_000
    sizes = [len(rows) for rows in names["split"][:3]]
    assert sum(sizes) == 60 and min(sizes) > 0
    assert results["num_games"] == sizes[2] and 0 < results["score_mean"] < 1 and results["errors"] == 0


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A hat, under the names that the page reads."""
    item = {
        "asin": "B00000000A",
        "name": "Soft Hat",
        "category": "fashion",
        "query": "hats",
        "product_category": "Clothing › Men › Hats",
        "full_description": "warm",
        "small_description": ["one"],
        "pricing": "$10.00",
        "customization_options": None,
    }
    wish = {"instruction": "a hat", "instruction_attributes": ["soft"], "instruction_options": []}
    content = {
        "items_shuffle_1000": [item],
        "items_ins_v2_1000": {"B00000000A": {"attributes": ["soft"]}},
        "items_human_ins": {"B00000000A": [wish]},
    }
    for name, value in content.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    monkeypatch.chdir(tmp_path)


def test_the_originals_files_and_servers(files):
    made = []

    def make(name, human_goals):
        assert (name, human_goals) == ("WebAgentTextEnv-v0", True)
        made.append(OriginalGym(names["catalogue"]))
        return made[0]

    names = {"gym": SimpleNamespace(make=make)}
    kinds = []
    for line in SERVERS.strip().splitlines():
        exec(compile(line, str(PAGE), "exec"), names)
        kinds.append(type(names.get("env")).__name__)
    assert isinstance(names["catalogue"], Catalogue)
    assert [kind for kind in kinds if kind != "NoneType"] == [
        "WebShop",
        "WebShopHTTP",
        "WebShopGym",
        "WebShopAgentGym",
    ]
    shop = WebShopGym(made[0])
    assert "a hat, and price lower than" in shop.reset(task="fixed_0")[0]


def test_the_small_shops_game_is_played_as_printed():
    (game,) = re.findall(r"```\n(round dress .*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    start, *lines = game.strip().splitlines()
    env = make_env("webshop", catalogue="small")
    task = next(task for task in env.tasks() if task.prompt == start)
    assert env.reset(task=task)[0] == start
    for action, page in zip(lines[::2], lines[1::2], strict=True):
        assert env.step(action.removeprefix("> "))[0] == page
