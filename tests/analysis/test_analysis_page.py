import json
import re
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from boost_trl import cli
from boost_trl.analysis import pictures
from boost_trl.analysis.report import Options, analyze
from boost_trl.analysis.run_files import open_run
from boost_trl.pictures import figure
from boost_trl.scripts import analyze as analyze_command
from boost_trl.trainer.common.weight_files import EXAMPLE_WEIGHTS_NAME


def numbers_of(folder):
    return json.loads((folder / "analysis.json").read_text())


def test_page_of_a_run_is_one_file_that_shows_rows_as_text(make_run):
    folder = make_run()
    written = analyze(open_run(folder))
    page = written.page.read_text()
    assert not written.missing and page.count("<img ") == 3
    assert len(re.findall(r'src="data:image/png;base64,', page)) == page.count("src=") == 3
    assert "<script" not in page and "&lt;script&gt;alert(" in page and "![x](https://example.org/x.png)" in page
    assert "fruits | nuts" in page
    # Every section says what it shows here.
    assert page.count("<strong>Here:</strong>") == page.count("<h2>") == 4 == len(written.findings)


def test_a_difference_within_chance_is_said_to_be_one(make_run):
    folder = make_run()
    table = pd.read_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    assert "within what chance does" not in analyze(open_run(folder)).findings[0]
    weights = np.random.default_rng(1).lognormal(0, 0.5, len(table))
    table.assign(weight=weights, score=np.log(weights)).to_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    assert "within what chance does" in analyze(open_run(folder)).findings[0]


def test_numbers_are_those_of_the_table(make_run):
    folder = make_run()
    analyze(open_run(folder))
    table, numbers = pd.read_parquet(folder / EXAMPLE_WEIGHTS_NAME), numbers_of(folder)
    by_kind = {group["name"]: group for group in numbers["weight_change"]["by_kind"]}
    assert set(by_kind) == {"planted noise: bot", "offline", "synthetic"}
    noise = table[table["noise_kind"] == "bot"]["weight"]
    assert by_kind["planted noise: bot"]["mean"] == pytest.approx(noise.mean() - 1)
    assert numbers["effective_sample_size"] == pytest.approx(table["weight"].sum() ** 2 / (table["weight"] ** 2).sum())
    assert numbers["bound"]["hitting_time"] == pytest.approx(np.average(-table["return"], weights=table["weight"]))
    assert [row["index"] for row in numbers["extreme_rows"]["highest"]] == (
        table.sort_values("weight", ascending=False)["index"].tolist()[:3]
    )
    assert [row["index"] for row in numbers["extreme_rows"]["lowest"]] == table.sort_values("weight")[
        "index"
    ].tolist()[:3]


def test_offline_rows_are_compared_with_a_run_without_synthetic_ones(make_run):
    before, after, other = make_run("bilevel", synthetic=False), make_run(), make_run("twin")
    runs = [open_run(folder) for folder in (before, after, other)]
    for run in runs:
        analyze(run, runs)
    numbers = numbers_of(after)
    assert [key for key in numbers if key.startswith("shift")] == ["shift_from_bilevel"]
    high = [run.weights[:20] > 1 for run in runs]
    assert numbers["shift_from_bilevel"]["kept"] == pytest.approx(high[1][high[0]].mean())
    assert not [key for key in numbers_of(before) if key.startswith("shift")]


def test_what_is_missing_is_said_and_the_rest_is_there(make_run):
    folder = make_run(rows=False)
    (folder / "_embeddings.safetensors").unlink()
    table = pd.read_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    table.assign(**{"return": 0.5}).to_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    written = analyze(open_run(folder))
    assert [
        any(word in reason for reason in written.missing) for word in ("embeddings", "rows at both", "no bound")
    ] == [True] * 3
    assert "weight_change" in numbers_of(folder)


def test_equal_weights_and_rows_without_rewards_or_kinds(make_run):
    folder = make_run(learned=False, rows=False)
    written = analyze(open_run(folder))
    assert "no weights were learned" in written.findings[0] and "weight_change" not in numbers_of(folder)
    table = pd.read_parquet(folder / EXAMPLE_WEIGHTS_NAME)[["index", "weight", "score", "text"]]
    table.assign(weight=np.linspace(0.5, 1.5, 40)).to_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    written = analyze(open_run(folder))
    assert len(written.missing) == 2 and "bound" not in numbers_of(folder)


def test_weights_of_turns_are_shown_where_rows_weigh_the_same(make_run):
    folder = make_run(learned=False)
    table = pd.read_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    table["turn_weights"] = [[0.5, 1.5]] * len(table)
    table.to_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    page = analyze(open_run(folder)).page.read_text()
    assert "no weights were learned" not in page and "Each turn was weighed: between 0.50× and 1.50×." in page
    (row, *_) = numbers_of(folder)["extreme_rows"]["highest"]
    assert [turn["weight"] for turn in row["turns"]] == [None, "0.50×", None, "1.50×"]


def test_rows_that_were_not_trained_on_do_not_count(make_run):
    folder = make_run()
    table = pd.read_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    table.loc[[0, 39], ["weight", "score"]] = [[0.0, np.nan], [0.0, -np.inf]]
    table.to_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    run = open_run(folder)
    assert len(run.table) == 38 and run.weights.mean() == pytest.approx(1)
    assert any("embeddings" in reason for reason in analyze(run).missing)  # they are of 40 rows


def test_a_file_of_code_that_a_run_names_is_not_run():
    class Run:
        result = {"environment": "downloaded.py:Game"}

    with pytest.raises(ValueError, match="run only if `--environment` names it"):
        analyze_command._environment(analyze_command.AnalyzeArguments(), Run())


def test_invalid_actions_are_marked_where_the_environment_knows_them(make_run):
    class Picky:
        max_steps = 5

        def reset(self, *, seed=None, task=None):
            self.task = task
            return "Ask.", {}

        def step(self, action):
            is_last = action == "Blorp"
            return "Yes.", -1.0, is_last, False, {"valid": not is_last}

    folder = make_run()
    rows = pd.read_parquet(folder / "_extreme_rows.parquet")
    rows["task"] = [{"id": "x", "category": "c"}] * len(rows)
    rows.to_parquet(folder / "_extreme_rows.parquet")
    unmarked = analyze(open_run(make_run("no-task")), options=Options(Picky())).page.read_text()
    assert "Invalid actions are not marked" in unmarked and "invalid action</span>" not in unmarked
    page = analyze(open_run(folder), options=Options(Picky())).page.read_text()
    assert page.count("invalid action</span>") == 6
    assert numbers_of(folder)["extreme_rows"]["invalid_actions"] == [[3, 6], [3, 6]]
    assert "of their actions are invalid" not in page  # the same share at both ends says nothing


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"prompt": "a", "completion": "b"}, [("user", "a"), ("assistant", "b")]),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, [("user", "a"), ("chosen", "b"), ("rejected", "c")]),
        (
            {"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "rejected": "c"},
            [("chosen", "a"), ("chosen", "b"), ("rejected", "c")],
        ),
        (
            {
                "prompt": [{"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}],
                "completion": "b",
            },
            [("system", "a\n[image]"), ("assistant", "b")],
        ),
        ({"text": "a", "source": "web", "n": 3}, [("text", "a")]),
    ],
)
def test_rows_of_every_format_are_shown(row, turns, make_run):
    folder = make_run()
    pq.write_table(
        pyarrow.Table.from_pylist([row | {"example_index": i} for i in (0, 39)]), folder / "_extreme_rows.parquet"
    )
    analyze(open_run(folder))
    (shown,) = numbers_of(folder)["extreme_rows"]["highest"]
    assert [(turn["role"], turn["text"]) for turn in shown["turns"]] == turns


def test_a_table_of_categories_stands_once(make_run):
    folder = make_run("bilevel", synthetic=False)
    table = pd.read_parquet(folder / EXAMPLE_WEIGHTS_NAME).assign(noise_kind="")
    table.to_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    page = analyze(open_run(folder)).page.read_text()
    assert page.count("<td>tools</td>") == 1
    assert {group["name"] for group in numbers_of(folder)["weight_change"]["by_kind"]} == {"tools", "fruits | nuts"}


def test_cells_of_other_settings_are_not_compared(make_run):
    before = make_run("bilevel", synthetic=False, label="Bilevel Only", seed=0, setting="webshop-mc-low")
    after = make_run("boost", label="BOOST", seed=0, setting="webshop-ilql-low")
    runs = [open_run(folder) for folder in (before, after)]
    analyze(runs[1], runs)
    assert not [key for key in numbers_of(after) if key.startswith("shift")]


def test_labels_of_a_picture_fit_in_it(make_run, tmp_path, monkeypatch):
    long = {"label": "Validated, chosen by games", "setting": "twenty_questions-ilql-high", "seed": 31}
    runs = [open_run(make_run("bilevel", synthetic=False, **long)), open_run(make_run(**long))]
    extents = []

    @contextmanager
    def kept(path, *subplots, **options):
        with figure(path, *subplots, **options) as (whole, axes):
            yield whole, axes
            whole.canvas.draw()
            width, height = whole.canvas.get_width_height()
            extents.append((axes.xaxis.label.get_window_extent(), axes.yaxis.label.get_window_extent(), width, height))

    monkeypatch.setattr(pictures, "figure", kept)
    analyze(runs[1], runs)
    across, up, width, height = extents[2]
    assert across.x0 >= 0 and across.x1 <= width and up.y0 >= 0 and up.y1 <= height


def write_corrupt(path):
    path.write_bytes(b"PAR1 half of a file")


def change_table(**columns):
    def change(folder):
        table = pd.read_parquet(folder / EXAMPLE_WEIGHTS_NAME)
        table.drop(columns=[name for name, value in columns.items() if value is None]).assign(
            **{name: value for name, value in columns.items() if value is not None}
        ).to_parquet(folder / EXAMPLE_WEIGHTS_NAME)

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: write_corrupt(folder / EXAMPLE_WEIGHTS_NAME), "example_weights.parquet cannot be read"),
        (change_table(weight=None), "is no table of `example_weights()`: it has no column `weight`"),
        (change_table(index=None), "it has no column `index`"),
        (change_table(score=np.nan), "has no row that was trained on"),
        (change_table(weight=np.nan), "column `weight`: weights must be finite"),
        (change_table(weight=0.0), "column `weight`: weights must be finite, at least 0 and not all 0"),
        (change_table(weight="heavy"), "column `weight`: weights must be finite"),
        (lambda folder: (folder / "result.json").write_text('{"label": "BOO'), "result.json cannot be read"),
    ],
)
def test_a_folder_that_is_no_run_is_one_line_and_the_others_go_on(spoil, message, make_run, capsys):
    broken, whole = make_run("broken"), make_run("whole")
    spoil(broken)
    assert cli.main(["analyze", str(broken)]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert cli.main(["analyze", str(broken), str(whole)]) == 0
    assert message in capsys.readouterr().out and (whole / "analysis.html").exists()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: write_corrupt(folder / "_embeddings.safetensors"), "_embeddings.safetensors cannot be read"),
        (
            lambda folder: save_file({"x": np.zeros(3)}, folder / "_embeddings.safetensors"),
            "_embeddings.safetensors cannot be read",
        ),
        (
            lambda folder: save_file(
                {"embeddings": np.full((40, 2), np.nan, np.float32)}, folder / "_embeddings.safetensors"
            ),
            "embeddings",
        ),
        (
            lambda folder: pd.DataFrame({"a": [1]}).to_parquet(folder / "_extreme_rows.parquet"),
            "_extreme_rows.parquet cannot be read",
        ),
        (
            lambda folder: pd.DataFrame({"a": [1]}).to_parquet(folder / "rollouts.parquet"),
            "rollouts.parquet cannot be read",
        ),
        (lambda folder: write_epoch(folder, "epoch-1", 2), "example_weights cannot be read"),
        (lambda folder: write_epoch(folder, "epoch-last", 40), "example_weights cannot be read"),
    ],
)
def test_a_broken_file_costs_one_analysis(spoil, reason, make_run):
    folder = make_run()
    spoil(folder)
    (missing,) = analyze(open_run(folder)).missing
    assert reason in missing


def write_epoch(folder, name, rows):
    (folder / "example_weights").mkdir()
    pd.DataFrame({"weight": np.ones(rows)}).to_parquet(folder / "example_weights" / f"{name}.parquet")


def test_a_world_that_is_not_here_costs_the_marks_only(make_run, capsys):
    folder = make_run(label="BOOST", seed=1, environment="chess")
    assert cli.main(["analyze", str(folder)]) == 0
    assert "invalid actions are not marked: no environment is called 'chess'" in capsys.readouterr().out


def test_somebody_elses_result_is_left_alone(make_run):
    folder = make_run()
    (folder / "result.json").write_text("[1]")
    assert cli.main(["analyze", str(folder)]) == 0 and numbers_of(folder)["run"] == "boost"


def test_games_of_nobody_are_no_task_shift(make_run):
    folder = make_run()
    pd.DataFrame({"rewards": []}).to_parquet(folder / "rollouts.parquet")
    assert not analyze(open_run(folder)).missing and numbers_of(folder)["bound"]["task_shift"] is None


def test_a_folder_that_cannot_be_written_to_is_said_at_once(make_run, monkeypatch, capsys):
    folder = make_run()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert cli.main(["analyze", str(folder)]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_command_names_pages_and_findings(make_run, capsys):
    before, after = make_run("bilevel", synthetic=False), make_run(label="BOOST", seed=3)
    (before.parent / "empty").mkdir()
    assert (
        cli.main(["analyze", *map(str, (before, after, before.parent / "empty")), "--kl", "2", "--task_shift", "0.5"])
        == 0
    )
    printed = capsys.readouterr().out
    assert f"BOOST, seed 3: {after}/analysis.html" in printed and "left out:" in printed
    assert numbers_of(after)["bound"]["kl"] == 2 and numbers_of(after)["bound"]["task_shift"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing is no folder"),
        (["."], "has no example_weights.parquet"),
        ([".", "--delta", "2"], "`delta` must be between 0 and 1, got 2.0"),
        ([".", "--sigma", "0"], "above 0"),
        ([".", "--environment", "chess"], "no environment is called 'chess'"),
        ([".", "--environment_kwargs", "{}x"], "no JSON"),
        ([".", "--task_shift", "1", "--heldout_dataset_name", "a.jsonl"], "give one of them"),
    ],
)
def test_command_errors_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["analyze", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
