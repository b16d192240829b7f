import subprocess
import sys

import pytest
from comparison_examples import EXAMPLES, QUICK, load_example, run_example

from boost_trl.environments.twenty_questions import pretraining


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
    for picture in ("weights_by_kind.png", "weight_against_distance.png"):
        assert picture in report and (tmp_path / picture).stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "Headroom (Oracle − Uniform)" in printed and "BOOST minus" in printed
    assert "One game of BOOST's policy" in printed and "agent:" in printed and "world: category:" in printed


def test_without_noise_there_is_no_oracle_and_ilql_works(example, tmp_path):
    flags = "--noise none --algorithm ilql --train_fraction 0.1 --methods boost oracle --seeds 0 1".split()
    rows = run_example(example, tmp_path, *QUICK, *flags)
    assert [row["method"] for row in rows] == ["boost"] and rows[0]["worlds"] == 2
    assert rows[0]["weights_auc"] is None


def test_help_is_enough_and_needs_no_training():
    command = [sys.executable, EXAMPLES / "twenty_questions.py", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for option in ("--noise", "--noise_share", "--algorithm", "--seeds", "--train_fraction", "--model_name_or_path"):
        assert option in shown
