import json
import logging
import re
import runpy
import shlex
import sys

import pandas as pd
import pytest
import torch
from comparison_examples import EXAMPLES, load_example, run_example
from comparison_examples import QUICK as QUICK_TRAINING

from boost_trl import ValueHeads, ValuePolicy, cli
from boost_trl.comparison.offline_rl import worlds
from boost_trl.environments.twenty_questions import pretraining


QUICK = [*QUICK_TRAINING, "--environment_kwargs", '{"max_questions": 5}']
FIELDS = {
    *("method", "score_mean", "score_se", "success_rate", "mean_turns", "effective_sample_size", "weights_auc"),
    *("beta", "seconds"),
}


@pytest.fixture
def example(monkeypatch):
    # A minute of pretraining is for people who watch; here the model may stay ignorant.
    monkeypatch.setattr(pretraining, "FACT_STEPS", 3)
    monkeypatch.setattr(pretraining, "DIALOGUE_STEPS", 3)
    monkeypatch.setattr(pretraining, "NUM_TEXTS", 200)
    return load_example("twenty_questions", monkeypatch)


def test_the_demo_writes_what_it_promises(example, tmp_path, capsys):
    methods = ["vanilla", "two_stage", "uniform", "boost", "oracle"]
    rows = run_example(example, tmp_path, *QUICK, "--methods", *methods)
    assert [row["method"] for row in rows] == methods
    assert all(FIELDS <= row.keys() for row in rows)
    by_method = {row["method"]: row for row in rows}
    assert by_method["uniform"]["weights_auc"] is None and 0 <= by_method["boost"]["weights_auc"] <= 1
    assert all(row["beta"] in (1, 2, 3, 5) for row in rows)
    report = (tmp_path / "report.md").read_text()
    for picture in ("scores.png", "weights_by_kind.png"):
        assert picture in report and (tmp_path / picture).stat().st_size > 5000
    page = (tmp_path / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert re.search(r"Of 5 ways of training, <em>.+</em> plays best: it solves \d+% of the held-out games", page)
    assert "Returns do not tell: those of the bad rows are the higher ones" in page  # a bot fakes successes
    assert "are a scripted bot's" in page and "The 6 that count least" in page
    assert 'class="game"' in page and "A held-out game of <em>BOOST</em>" in page
    check_cell_files(tmp_path, by_method["boost"])
    printed = capsys.readouterr().out
    assert "Headroom (Oracle − Uniform)" in printed and "BOOST minus" in printed
    assert "One game of BOOST, the best learned method's policy" in printed
    assert "agent:" in printed and "world: category:" in printed
    assert str(tmp_path / "policy") in printed and not any((tmp_path / "policy").glob("*.png"))


def check_cell_files(folder, row):
    """The saved games of BOOST give the score of its row in the table, and the other files are of its run."""
    (cell,) = folder.glob("runs/*-boost-*")
    scores = pd.read_parquet(cell / "rollouts.parquet")["score"]
    assert len(scores) == 8 and scores.mean() == pytest.approx(row["score_mean"])
    assert pd.read_parquet(cell / "example_weights.parquet")["weight"].mean() == pytest.approx(1, abs=1e-4)
    assert "loss" in pd.read_parquet(cell / "metrics.parquet").columns
    assert json.loads((cell / "training_config.json").read_text())["max_steps"] == 20


def test_the_best_learned_methods_policy_plays_on(example, tmp_path, monkeypatch, capsys):
    experiments, build = [], worlds.build_experiment
    monkeypatch.setattr(
        worlds,
        "build_experiment",
        lambda *args, **kwargs: experiments.append(build(*args, **kwargs)) or experiments[0],
    )
    rows = run_example(example, tmp_path, *QUICK, "--methods", "vanilla", "bilevel", "validated", "oracle")
    learned = {row["method"]: row for row in rows if row["method"] in ("bilevel", "validated")}
    best = max(learned.values(), key=lambda row: row["score_mean"])
    printed = capsys.readouterr().out
    assert f"One game of {best['label']}, the best learned method's policy" in printed
    policy = ValuePolicy.from_pretrained(tmp_path / "policy")
    assert policy.beta == best["beta"]
    (run_folder,) = (tmp_path / "runs").glob(f"*-{best['method']}-*")
    kept = ValueHeads.from_pretrained(run_folder)
    assert torch.equal(policy.value_heads.q_weight, kept.q_weight)
    # The command that was printed, as it stands.
    (command,) = [line for line in printed.splitlines() if "boost-trl rollout" in line]
    command = shlex.split(command[command.index("boost-trl") :])
    assert cli.main(command[1:]) == 0
    shown = capsys.readouterr().out
    played = [line.rsplit(" (", 1)[0] for line in shown.splitlines() if line.endswith(")")]
    assert "assistant:" in shown and len(set(played)) == len(played) == 5
    known = [row["task"]["id"] for part in ("pool", "validation") for row in getattr(experiments[0], part)]
    held_out = {row["task"]["id"] for row in experiments[0].evaluation} - set(known)
    assert set(played) <= held_out
    # The README's command is as this one.
    assert {"--watch", str(tmp_path / "policy" / "held_out_tasks.jsonl")} <= set(command)


def test_without_a_learned_method_the_best_of_the_others_is_kept(example, tmp_path, capsys):
    rows = run_example(example, tmp_path, *QUICK, "--methods", "vanilla", "uniform", "oracle")
    best = max(rows[:2], key=lambda row: row["score_mean"])
    assert f"One game of {best['label']}, the best method's policy" in capsys.readouterr().out
    assert ValuePolicy.from_pretrained(tmp_path / "policy").beta == best["beta"]


def test_without_noise_there_is_no_oracle_and_ilql_works(example, tmp_path):
    flags = "--noise none --algorithm ilql --train_fraction 0.1 --methods boost oracle --seeds 0 1".split()
    rows = run_example(example, tmp_path, *QUICK, *flags)
    assert [row["method"] for row in rows] == ["boost"] and rows[0]["worlds"] == 2
    assert rows[0]["weights_auc"] is None


def test_help_is_enough_and_needs_no_training(monkeypatch, capsys, caplog):
    caplog.set_level(logging.WARNING, "boost_trl")  # the script sets it, and here it is put back
    path = str(EXAMPLES / "twenty_questions.py")
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(path, run_name="__main__")
    shown = capsys.readouterr().out
    assert stopped.value.code == 0
    for option in ("--noise", "--noise_share", "--algorithm", "--seeds", "--train_fraction", "--model_name_or_path"):
        assert option in shown
