"""The page of performance says what was measured, and the measuring measures."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest


ROOT = Path(__file__).parents[1]


@pytest.fixture
def import_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def load(name):
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


def test_the_page_shows_the_figures_of_the_json(import_benchmark):
    run = import_benchmark("run")
    results = json.loads(run.JSON.read_text())["results"]
    assert results.keys() <= run.MEASURES.keys()
    assert run.table(results) in run.PAGE.read_text()


def test_every_measure_is_a_function(import_benchmark):
    run = import_benchmark("run")
    for name in run.MEASURES:
        file, _, function = name.partition(".")
        text = (ROOT / "benchmarks" / f"{file}.py").read_text()
        assert f"\ndef {function or 'measure'}(" in text


def test_ways_take_turns_and_a_ratio_is_that_of_one_round(import_benchmark):
    side_by_side = import_benchmark("side_by_side")
    done = []

    def way(name, seconds):
        def run():
            done.append(name)
            return side_by_side.Seconds(next(seconds), 1.0)

        return run

    ways = {"ours": way("ours", iter([99, 2, 8, 3])), "theirs": way("theirs", iter([99, 1, 2, 2]))}
    times = side_by_side.in_turns(ways, 3, "nothing")
    assert done == ["theirs", "ours", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    row = times.row("a measure", "ours", "theirs", 1.0, named="theirs")
    assert (row.value, row.lowest, row.highest, row.wall) == (2.0, 1.5, 4.0, 1.0)


def allocating(megabytes):
    """A function for [`peak_megabytes`], after a larger peak that must not count."""
    np.ones(200 * 2**17).sum()
    return lambda: np.ones(megabytes * 2**17).sum()


def test_the_peak_of_memory_is_that_of_the_function_alone(import_benchmark):
    side_by_side = import_benchmark("side_by_side")
    assert 60 < side_by_side._with_peak(allocating, (64,))[1] < 70
