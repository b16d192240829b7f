"""The study of flipped preference pairs."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from boost_trl.comparison.cells import Cell


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dpo_study():
    spec = importlib.util.spec_from_file_location("dpo_study", ROOT / "examples" / "dpo_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pairs_prefer_the_answer_of_greater_worth_but_where_they_are_flipped(dpo_study):
    experiment = dpo_study.experiment_of(Cell("plain", 3, "40 % flipped"))
    is_good = np.array(experiment.pool["is_good"][:])
    assert len(is_good) == dpo_study.NUM_PAIRS and (~is_good).sum() == 0.4 * len(is_good)
    worth = {}
    for rows in (experiment.trusted, experiment.evaluation, experiment.pool.filter(lambda row: row["is_good"])):
        for row in rows:
            for name, sign in (("chosen", 1), ("rejected", -1)):
                for word in row[name].split():
                    worth[word] = worth.get(word, 0) + sign
    # A word's surplus among preferred answers says what it is worth, and with it which pairs are flipped.
    margins = np.array(
        [
            sum(worth[w] for w in row["chosen"].split()) - sum(worth[w] for w in row["rejected"].split())
            for row in experiment.pool
        ]
    )
    assert ((margins > 0) == is_good).mean() > 0.85
    again = dpo_study.experiment_of(Cell("plain", 3, "40 % flipped"))
    assert again.pool.to_list() == experiment.pool.to_list()


@pytest.mark.parametrize("method", ["two_stage", "rank", "known_good"])
def test_a_cell_of_each_kind(method, dpo_study, tmp_path, monkeypatch, capsys):
    for name, value in {"NUM_PAIRS": 20, "NUM_TRUSTED": 6, "NUM_EVALUATED": 8, "BATCH": 4, "STEPS": 5}.items():
        monkeypatch.setattr(dpo_study, name, value)
    report = tmp_path / "report.json"
    arguments = {"folder": str(tmp_path), "seeds": [1], "settings": ["40 % flipped"], "methods": [method]}
    dpo_study.main(dpo_study.StudyArguments(**arguments))
    dpo_study.main(dpo_study.StudyArguments(**arguments, report=str(report)))
    (result,) = json.loads(report.read_text())
    assert result["method"] == method and 0 < result["eval_loss"] < 2 and 0 <= result["pair_accuracy"] <= 1
    assert (result["weights_auc"] is None) == (method != "rank")
    assert dpo_study.METHODS[method].label in capsys.readouterr().out
