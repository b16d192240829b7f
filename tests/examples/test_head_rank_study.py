"""`examples/head_rank_study.py`: tables by hand, and that the page shows the committed data."""

import importlib.util
import json
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("head_rank_study", ROOT / "examples" / "head_rank_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_scores_and_what_a_lower_rank_loses_by_hand(study):
    scores = {"full": (5.0, 7.0), "32": (5.0, 7.0), "16": (4.0, 7.0), "8": (3.0, 4.0), "4": (1.0, 1.0)}
    rows = [
        {"method": "uniform_mix", "setting": f"mc-{rank}", "seed": seed, "score_mean": score}
        for rank, both in scores.items()
        for seed, score in enumerate(both)
    ]
    # A third seed lacks most ranks, and counts nowhere; ILQL has nothing.
    rows.append({"method": "uniform_mix", "setting": "mc-16", "seed": 2, "score_mean": 100.0})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in study.scores_table(rows).splitlines()[2:]]
    assert lines[0] == ["full", "6.00 ± 1.00", "–", "–", "–"]
    assert lines[2] == ["16", "5.50 ± 1.50", "-0.50 ± 0.50", "–", "–"]
    assert lines[4] == ["4", "1.00 ± 0.00", "-5.00 ± 1.00", "–", "–"]


def test_memory_by_hand(study):
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in study.memory_table().splitlines()[2:]]
    # Two heads of 128,256 · 4,096 numbers at 16 bytes; of rank 64: 64 · (128,256 + 4,096).
    assert lines[-1] == ["Llama-3.1-8B", "128,256", "4096", "ilql", "16.81", "0.07", "0.27", "1.08"]


def test_the_page_has_the_tables_of_the_data(study):
    rows = json.loads((ROOT / "docs" / "data" / "head_rank_study.json").read_text())
    page = (ROOT / "docs" / "value_policy.md").read_text()
    rankings = json.loads((ROOT / "docs" / "data" / "head_rank_rankings.json").read_text())
    assert study.scores_table(rows) in page and study.memory_table() in page and study.rankings_table(rankings) in page


def test_rankings_by_hand(study):
    def row(rank, seed, wins):
        return {"rank": rank, "seed": seed, "wins": wins, "untrained_wins": [0, 1, 0, 1]}

    rows = [
        row("full", 0, [1, 1, 0, 1]),
        row("full", 1, [1, 1, 0, 0]),
        row("16", 0, [0, 1, 0, 1]),
        row("16", 1, [1, 1, 0, 1]),
    ]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in study.rankings_table(rows).splitlines()[2:]]
    # Means over seeds: full 1, 1, 0, .5; rank 16 .5, 1, 0, 1, whose differences -.5, 0, 0, .5 have SE .204.
    assert lines[0] == ["full", "50.0% ± 28.9%", "62.5% ± 23.9%", "–"]
    assert lines[1] == ["16", "50.0% ± 28.9%", "62.5% ± 23.9%", "+0.0% ± 20.4%"]
