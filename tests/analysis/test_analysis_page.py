import json
import re

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet as pq
import pytest

from boost_trl import cli
from boost_trl.analysis.report import Options, analyze
from boost_trl.analysis.run_files import open_run
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


def test_rows_that_were_not_trained_on_do_not_count(make_run):
    folder = make_run()
    table = pd.read_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    table.loc[[0, 39], ["weight", "score"]] = [[0.0, np.nan], [0.0, -np.inf]]
    table.to_parquet(folder / EXAMPLE_WEIGHTS_NAME)
    run = open_run(folder)
    assert len(run.table) == 38 and run.weights.mean() == pytest.approx(1)
    assert any("embeddings" in reason for reason in analyze(run).missing)  # they are of 40 rows


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
