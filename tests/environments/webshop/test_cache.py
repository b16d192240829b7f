"""Generated shops on disk."""

import ast
from pathlib import Path

import pytest

from boost_trl.environments.webshop import (
    WebShop,
    cache,
    generate_small_catalogue,
)
from boost_trl.environments.webshop.cache import load_catalogue, read_catalogue, write_catalogue


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
