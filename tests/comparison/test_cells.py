"""The runner of cells, on a kind of experiment that does nothing."""

import json

import pytest

from boost_trl.comparison.cells import Cell, Comparison, Method, run_cells, saved_results, shard
from boost_trl.comparison.results import Result, aggregate, mean_over_groups, paired_difference


class Toy(Comparison):
    methods = {"a": Method("a", "A"), "b": Method("b", "B"), "c": Method("c", "C", needs="a")}

    def __init__(self, folder, learning_rate=1.0):
        super().__init__(folder, lambda cell: self.made.append(cell) or object())
        self.learning_rate, self.made, self.ran = learning_rate, [], []

    def name(self, cell):
        return f"{cell.setting}-{cell.method}-{cell.seed}"

    def settings(self, cell):
        return {"learning_rate": self.learning_rate}

    def run(self, cell, advance):
        self.experiment(cell)
        self.ran.append(cell)
        return Result(cell.method, cell.method.upper(), cell.seed, 1.0, 2, None, 0.5, 1.0, cell.setting, {"x": [1.0]})


CELLS = [Cell(method, seed, setting) for setting in ("u", "v") for seed in (0, 1) for method in ("a", "b", "c")]


def test_a_cell_runs_once_and_its_experiment_is_made_when_it_is_needed(tmp_path):
    toy = Toy(tmp_path)
    first = run_cells(toy, CELLS[:4], progress=False)
    assert toy.ran == CELLS[:4] and [(cell.setting, cell.seed) for cell in toy.made] == [("u", 0), ("u", 1)]
    again = Toy(tmp_path)
    assert run_cells(again, CELLS[:4], progress=False) == first == saved_results(again, CELLS)
    assert again.ran == again.made == []
    other = Toy(tmp_path, learning_rate=2.0)
    assert saved_results(other, CELLS) == []
    run_cells(other, CELLS[:1], progress=False)
    assert other.ran == CELLS[:1] and json.loads((tmp_path / "runs/u-a-0/result.json").read_text())["x"] == [1.0]


def test_shards_make_up_the_whole_but_for_what_waits(tmp_path):
    toy = Toy(tmp_path)
    shares = [shard(toy, CELLS, part) for part in ("1/3", "2/3", "3/3")]
    assert sorted(map(repr, sum(shares, []))) == sorted(repr(cell) for cell in CELLS if cell.method != "c")
    by_seed = [shard(toy, CELLS, part, group=lambda cell: cell.seed) for part in ("1/2", "2/2")]
    assert [{cell.seed for cell in share} for share in by_seed] == [{0}, {1}]


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "a/b", "1/", "-1/2"])
def test_a_shard_that_is_none_is_named(part, tmp_path):
    with pytest.raises(ValueError, match=f"`shard` must be such as '1/4'.* got '{part}'"):
        shard(Toy(tmp_path), CELLS, part)


def test_methods_are_chosen_by_name(tmp_path):
    toy = Toy(tmp_path)
    assert toy.choose(None) == toy.choose(["all"]) == ["a", "b", "c"] and toy.choose(["b"]) == ["b"]
    with pytest.raises(ValueError, match=r"unknown methods \['d'\]; known: all, a, b, c"):
        toy.choose(["d"])


def result(method, seed, x, setting=""):
    return Result(method, method, seed, 1.0, 2, None, 0.5, 1.0, setting, {"x": x, "x_se": 3.0})


def test_pairs_are_of_one_setting_and_seed():
    results = [
        result("a", 0, 1.0),
        result("b", 1, 5.0),
        result("a", 1, 7.0),
        result("b", 0, 1.0),
        result("a", 2, 99.0),
    ]
    mean, error = paired_difference(results, "a", "b", "x")
    assert mean == 1.0 and error == pytest.approx(1.0)  # differences 0 and 2
    assert paired_difference(results[:1] + results[3:], "a", "b", "x", error="x_se") == (0.0, pytest.approx(18**0.5))
    assert paired_difference([result("a", 0, 1.0, "u"), result("b", 0, 1.0, "v")], "a", "b", "x") is None


def test_means_leave_out_what_is_missing():
    (row,) = aggregate(
        [result("a", 0, 1.0), result("a", 1, None), result("a", 2, 2.0)],
        ["x", "weights_auc"],
        lambda group: {"n": len(group)},
    )
    assert row == {"method": "a", "label": "a", "x": 1.5, "weights_auc": None, "n": 3}
    assert mean_over_groups({("w", 0): 0.0, ("w", 1): 2.0, ("v", 0): 5.0}, lambda key: key[0]) == (
        3.0,
        pytest.approx(2.0),
    )
