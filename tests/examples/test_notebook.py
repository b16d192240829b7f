"""The notebook runs from top to bottom, without the Hub; a cell that fails is named by its number."""

import json
from pathlib import Path

import matplotlib
import pytest


NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebooks" / "learned_weights.ipynb"


def run(**changes):
    """The names that the cells leave, with other values of the cell that is tagged as parameters."""
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    names = {}
    for number, cell in enumerate(cells, start=1):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, code cell {number}", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert changes.keys() <= names.keys()
            names.update(changes)
    return names


@pytest.fixture(autouse=True)
def no_screen_and_own_folders(monkeypatch, tmp_path):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path / "cache"))


def test_all_cells_run(capsys, monkeypatch):
    monkeypatch.setattr("boost_trl.comparison.sft.contradiction_pool.PRETRAINING_ROWS", 64)
    names = run(PRETRAINING_EPOCHS=1, UPDATES=6, NUM_ROWS=60)
    assert len(names["weights"]) == 60 and names["losses"].keys() == {"plain", "equal weights", "learned weights"}
    assert "to doubt, 48 to trust" in capsys.readouterr().out


@pytest.mark.slow
def test_it_shows_what_it_says():
    names = run()
    plain, equal, learned = names["losses"].values()
    assert learned < equal / 2 < plain / 2
    means = names["weights"].groupby("kind")["weight"].mean()
    assert means["good"] > 10 * max(means.drop("good"))
