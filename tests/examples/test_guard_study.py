"""`examples/guard_study.py`: regret by hand, and that the page shows the committed data."""

import importlib.util
import json
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("guard_study", ROOT / "examples" / "guard_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_regret_by_hand(study):
    # Scores, best validation games, cross-entropies and accuracies of two ways to weigh, with and without finishing.
    said = {
        "uniform": (2.0, 1.0, 0.9, 0.5),
        "all@0.4": (3.0, 4.0, 0.8, 0.5),
        "uniform+finish@0.3": (5.0, 6.0, 1.0, 0.6),
        "high_return@0.4": (1.0, 3.0, 1.1, 0.4),
    }
    results = {
        name: {"score_mean": score, "validation_scores": {"1": 0.0, "2": games}}
        for name, (score, games, _, _) in said.items()
    }
    judged = [{"name": name, "cross_entropy": said[name][2], "accuracy": said[name][3]} for name in said]
    results |= {f"{folds} folds": {"report": {"candidates": judged}} for folds in (2, 5)}
    lines = study.regrets_table({("webshop-bot", 5): results}, list(said)).splitlines()
    regrets = {cells[1].strip(): cells[2].split(" ±")[0].strip() for cells in (line.split("|") for line in lines[2:])}
    # The best is 5. Equal accuracies go to the first.
    assert regrets["always uniform"] == regrets["accuracy, 2 folds"] == "3.00"
    assert regrets["cross-entropy, 5 folds"] == regrets["games on validation tasks"] == "2.00"
    assert regrets["cross-entropy, 5 folds, finishing too"] == "2.00"
    assert regrets["games on validation tasks, finishing too"] == regrets["accuracy, 5 folds, finishing too"] == "0.00"


def test_the_page_has_the_tables_of_the_data(study):
    by_pool = {}
    for row in json.loads((ROOT / "docs" / "data" / "guard_study.json").read_text()):
        by_pool.setdefault((row["setting"], row["seed"]), {})[row["method"]] = row
    assert len(by_pool) == 12
    page = (ROOT / "docs" / "reproductions.md").read_text()
    candidates = list(study.GuardStudy.methods)[2:10]
    pools = dict(sorted(by_pool.items()))
    assert study.scores_table(pools, candidates) in page and study.regrets_table(pools, candidates) in page
