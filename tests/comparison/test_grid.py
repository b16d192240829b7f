"""The papers' tables from results that are made up, and the cells that they are of."""

import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import yaml

from boost_trl import BilevelSFTSelfRefineConfig
from boost_trl.comparison.cells import run_cells, saved_results, shard
from boost_trl.comparison.offline_rl import table_1
from boost_trl.comparison.offline_rl.grid import ALGORITHMS, DEFAULT_METHODS, SIZES, Grid, Setting, data_of
from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.results import Result
from boost_trl.comparison.sft import grid as sft_grid
from boost_trl.comparison.sft.methods import SFT_METHODS
from boost_trl.pictures import figure


ENVIRONMENTS = ["twenty_questions", "car_dealer", "webshop"]


def result(method, seed, scores, setting="webshop-mc-low", label=None):
    label = label or METHODS[method].label
    metrics = {"game_scores": scores, "eval_losses": scores, "clean_eval_loss": 0.5}
    return Result(method, label, seed, 1.0, 2, None, 0.5, 4.0 + seed, setting, metrics)


def cells_of(line):
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def table_of(table, first):
    """The row of a table, as Markdown or cells, that begins so."""
    rows = map(cells_of, table.splitlines()) if isinstance(table, str) else table
    return next(row for row in rows if row[: len(first)] == first)


def test_the_grid_has_every_cell_once_and_the_papers_low_data(tmp_path):
    grid = Grid(tmp_path)
    cells = grid.cells(ENVIRONMENTS, ALGORITHMS, SIZES, [0, 1, 2], DEFAULT_METHODS)
    methods = {cell.method for cell in cells}
    assert {"vanilla", "vanilla_synthetic", "bilevel", "boost", "two_stage", "uniform"} < methods
    assert not methods & {"oracle", "oracle_mix"}
    assert len(cells) == len(set(cells)) == 3 * 2 * 2 * 3 * len(methods)
    options = {cell.setting: grid.options(cell) for cell in cells}
    fractions = {name: each.arguments.train_fraction for name, each in options.items()}
    assert fractions["webshop-ilql-low"] == 0.3 and fractions["car_dealer-mc-low"] == 0.1
    assert fractions["twenty_questions-mc-low"] == 0.025 and fractions["webshop-ilql-high"] == 1
    for name, (arguments, training_args, _) in options.items():
        assert (arguments.environment, training_args.algorithm) == (name.split("-")[0], name.split("-")[1])
        assert arguments.noise == "none" and arguments.validation_rows is None
    shards = [shard(grid, cells, f"{index}/5", data_of) for index in range(1, 6)]
    assert sorted(map(repr, sum(shards, []))) == sorted(map(repr, cells))
    assert not {data_of(cell) for cell in shards[0]} & {data_of(cell) for cell in shards[1]}


def test_planted_noise_brings_the_oracles(tmp_path):
    cells = Grid(tmp_path, ["--noise", "bot", "--games", "7"]).cells(
        ["webshop"], ["mc"], ["low"], [0], DEFAULT_METHODS
    )
    assert {"oracle", "oracle_mix"} < {cell.method for cell in cells}
    assert Grid(tmp_path, ["--games", "7"]).options(cells[0]).arguments.games == 7


def test_data_are_the_same_for_both_algorithms(tmp_path, monkeypatch):
    grid, made = Grid(tmp_path), []
    monkeypatch.setattr(grid, "_make_experiment", lambda cell: made.append(cell) or object())
    mc, ilql = grid.cells(["webshop"], ALGORITHMS, ["low"], [0], ["boost"])
    assert grid.experiment(mc) is grid.experiment(ilql) and len(made) == 1


def test_table_1_by_hand(tmp_path):
    results = [
        result("vanilla", 0, [0.0, 0.0]),
        result("vanilla", 1, [1.0, 1.0]),
        result("boost", 0, [1.0, 2.0]),
        result("boost", 1, [2.0, 2.0]),
        result("two_stage", 0, [4.0, 4.0]),
        result("two_stage", 1, [4.0, 4.0]),
        result("vanilla", 0, [3.0], "car_dealer-ilql-high"),
        result("boost", 0, [1.0], "car_dealer-ilql-high"),
    ]
    table = table_1.scores_table(results)
    assert table[0] == ["algorithm", "environment", "data", "Vanilla", "Two-stage", "BOOST"]
    row = table_of(table, ["MC", "WebShop", "low"])
    # Seeds' means 1.5 and 2, their errors over games .5 and 0.
    assert row[3:] == ["0.50 ± 0.50 (0.00)", "**4.00 ± 0.00 (0.00)**", "1.75 ± 0.25 (0.25)"]
    assert table_of(table, ["", "*paper*"])[3:] == ["*0.24 ± 0.02*", "", "*0.40 ± 0.03*"]
    assert table_of(table, ["ILQL", "Car Dealer", "high"])[3:] == ["**3.00 ± 0.00**", "", "1.00 ± 0.00"]

    differences = table_1.differences_table(results, "boost")
    assert table_of(differences, ["MC", "WebShop", "low"])[3:] == ["+1.25 ± 0.25", "-2.25 ± 0.25"]
    assert table_of(differences, ["rows above : below"])[3:] == ["1 : 1", "0 : 1"]
    assert table_of(differences, ["sign test, p"])[3:] == ["1.000", "1.000"]
    assert table_1.differences_table(results, "validated") == ""

    first, best = table_1.findings(results)
    assert first.startswith(
        "BOOST is above Vanilla in 2 of 2 rows of the paper; here in 1 of 2, clearly above in 0 and"
    )
    assert (
        "best control of its row, chosen by these same games, in 0 of 1, clearly above in 0 and clearly below in 0"
        in best
    )

    table_1.write_report(tmp_path, results, "boost-trl reproduce --all")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and "boost-trl reproduce --all" in page
    rows = json.loads((tmp_path / "results.json").read_text())
    (boost,) = (row for row in rows if row["method"] == "boost" and row["environment"] == "webshop")
    assert (boost["score_mean"], boost["paper_mean"], boost["seeds"]) == (1.75, 0.4, 2)


def test_the_papers_figures_are_those_of_its_best():
    """What the paper says of its own table, so that no figure of ours is in a wrong column."""
    assert set(table_1.PAPER) == {Setting(e, a, s) for e in ENVIRONMENTS for a in ALGORITHMS for s in SIZES}
    for setting, figures in table_1.PAPER.items():
        best = max(figures, key=lambda name: figures[name][0])
        bilevel = {("twenty_questions", "mc"), ("car_dealer", "ilql"), ("webshop", "ilql")}
        is_exception = setting.size == "high" and setting[:2] in bilevel
        assert best == ("bilevel" if is_exception else "boost")


def sft_result(method, seed, losses, model="scratch"):
    return result(method, seed, losses, model, SFT_METHODS[method].label)


def test_sft_tables_by_hand(tmp_path):
    results = [
        sft_result("mixing_half", 0, [1.0, 2.0]),
        sft_result("mixing_half", 1, [3.0, 2.0]),
        sft_result("bds", 0, [1.0, 1.0]),
        sft_result("bds", 1, [1.0, 2.0]),
        sft_result("bmo", 0, [0.5, 0.5], "pretrained"),
    ]
    row = table_of(sft_grid.loss_table(results), ["Mixing ρ=.5"])
    assert row[1:] == ["2.000 ± 0.500", "", "*1.410 ± 0.011*", "*0.840 ± 0.008*"]
    differences = sft_grid.differences_table(results)
    assert table_of(differences, ["Mixing ρ=.5"])[1] == "-0.750 ± 0.250"
    cost = table_of(sft_grid.cost_table(results), ["BDS"])
    assert cost[1] == "4.5 ± 0.5" and cost[3] == "1.00" and cost[5:] == ["*0.31*", "*11.75*", "*1.29*", "*1.12*"]
    pipelines = sft_grid.levels_table(results, sft_grid.PAPER_PIPELINES, ("OpenOrca", "Alpaca"), only=True)
    assert [cells_of(line)[0] for line in pipelines.splitlines()[2:]] == ["BDS", "BMO"]
    sft_grid.write_report(tmp_path, results, "boost-trl reproduce --sft")
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1 and all(f"Table {number}" in page for number in (1, 2, 3, 4))
    assert len(json.loads((tmp_path / "results.json").read_text())) == 3


def test_sft_cells_train_and_report(tmp_path, monkeypatch):
    monkeypatch.setattr(sft_grid, "contradiction_pool", partial(sft_grid.contradiction_pool, num_rows=64))
    monkeypatch.setitem(sft_grid.MODELS, "scratch", {**sft_grid.MODELS["scratch"], "max_steps": 2})
    grid = sft_grid.SFTGrid(tmp_path)
    cells = [cell for cell in grid.cells([0], ["mixing_half", "online_10"]) if cell.setting == "scratch"]
    results = run_cells(grid, cells, progress=False)
    assert saved_results(grid, cells) == results and grid.run_folder(cells[1]).name == "online_10-0-scratch"
    table = sft_grid.write_report(tmp_path, results, "boost-trl reproduce --sft")
    loss = sum(results[0]["eval_losses"]) / 400
    assert f"{loss:.3f} ± " in next(line for line in table.splitlines() if line.startswith("Mixing ρ=.5"))


@pytest.mark.parametrize(
    "model, name", [("scratch", "sft_contradiction"), ("pretrained", "sft_contradiction_pretrained")]
)
def test_sft_models_train_as_the_example(model, name):
    path = Path(__file__).parents[2] / "examples" / "configs" / f"{name}.yaml"
    config = yaml.safe_load(path.read_text())
    ours = sft_grid.MODELS[model]
    assert {key: config[key] for key in ours.keys() & config.keys()} == {
        key: ours[key] for key in ours.keys() & config.keys()
    }
    assert sft_grid.PRETRAINING_EPOCHS[model] == config.get("pretraining_epochs", 0)


def test_table_1_of_oracles_alone():
    (_, row, _) = table_1.scores_table([result("oracle", 0, [1.0, 2.0])])
    assert row[3:] == ["1.50 ± 0.50"]


@pytest.mark.filterwarnings("error")
def test_the_picture_has_one_colour_per_size_of_the_data(tmp_path, monkeypatch):
    """The first panel is empty, and one panel has high data only."""
    results = [
        result("vanilla", 0, [1.0, 2.0], "webshop-mc-high"),
        result("vanilla", 0, [1.0, 2.0], "twenty_questions-ilql-low"),
        result("boost", 0, [1.0, 2.0], "twenty_questions-ilql-high"),
    ]
    drawn = []

    @contextmanager
    def kept(path, *subplots, **options):
        with figure(path, *subplots, **options) as (whole, panels):
            yield whole, panels
            drawn.append((whole, panels))

    monkeypatch.setattr(table_1, "figure", kept)
    table_1.draw_scores(results, tmp_path / "picture.png")
    ((whole, panels),) = drawn
    colours = {
        (row, column): [each.lines[0].get_color() for each in panels[row][column].containers]
        for row in (0, 1)
        for column in (0, 1)
    }
    assert colours == {(0, 0): [], (0, 1): ["C1"], (1, 0): ["C0", "C1"], (1, 1): []}
    (legend,) = whole.legends
    assert {text.get_text().split()[0] for text in legend.get_texts()} == {"low", "high"}


@pytest.mark.parametrize("model", [*sft_grid.MODELS])
@pytest.mark.parametrize("name", sft_grid.DEFAULT_METHODS)
def test_every_cell_of_the_second_papers_tables_has_a_schedule(model, name, tmp_path):
    """Where few rows are left, as of known-good ones, the same updates are more epochs, over which ρ must stay below one."""
    method, options = SFT_METHODS[name], sft_grid.MODELS[model]
    args = BilevelSFTSelfRefineConfig(str(tmp_path), **{**options, **method.options})
    num_rows = 960 if method.known_good else 2400
    updates = options.get("max_steps") or num_rows // 32 * options["num_train_epochs"]
    args.penalty_schedule(updates * 32 / num_rows).coefficients(0)
