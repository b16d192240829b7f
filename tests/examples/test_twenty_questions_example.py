import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from boost_trl.environments.twenty_questions import pretraining


EXAMPLE = Path(__file__).parents[2] / "examples" / "twenty_questions.py"
FIELDS = {
    *("method", "reward_mean", "reward_se", "success_rate", "mean_turns", "effective_sample_size", "weights_auc"),
    *("beta", "seconds"),
}


@pytest.fixture
def example(monkeypatch):
    # A minute of pretraining is for people who watch; here the model may stay ignorant.
    monkeypatch.setattr(pretraining, "FACT_STEPS", 3)
    monkeypatch.setattr(pretraining, "DIALOGUE_STEPS", 3)
    monkeypatch.setattr(pretraining, "NUM_TEXTS", 200)
    spec = importlib.util.spec_from_file_location("twenty_questions_example", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def run(example, folder, **options):
    example.main(
        example.Arguments(
            dialogues=120,
            validation_rows=10,
            updates=20,
            games=8,
            validation_games=4,
            output_dir=str(folder),
            **options,
        )
    )
    return json.loads((folder / "results.json").read_text())


def test_the_demo_writes_what_it_promises(example, tmp_path, capsys):
    rows = run(example, tmp_path, methods=["vanilla", "two_stage", "uniform", "boost", "oracle"])
    assert [row["method"] for row in rows] == ["vanilla", "two_stage", "uniform", "boost", "oracle"]
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
    rows = run(
        example, tmp_path, noise="none", algorithm="ilql", data="low", methods=["boost", "oracle"], seeds=[0, 1]
    )
    assert [row["method"] for row in rows] == ["boost"] and rows[0]["worlds"] == 2
    assert rows[0]["weights_auc"] is None


@pytest.mark.parametrize(
    "options, complaint", [({"noise": "loud"}, "`noise` is 'loud'"), ({"data": "none"}, "`data` is 'none'")]
)
def test_bad_options_are_named(example, tmp_path, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        run(example, tmp_path, **options)


def test_help_is_enough_and_needs_no_training():
    shown = subprocess.run([sys.executable, EXAMPLE, "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--noise", "--noise_share", "--algorithm", "--seeds", "--data"):
        assert option in shown
