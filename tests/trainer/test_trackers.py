"""Metrics, tables and pictures in real trackers, offline: one training of each kind with each of them that is installed."""

import json
import sqlite3

import processes
import pytest


TOKEN = "hf_RecognisableTokenOfThisTest"
TABLES = {"rl": {"eval_games", "example_weights"}, "sft": {"completions", "example_weights"}}
METRICS = {"rl": {"train/effective_sample_size", "eval/score_mean"}, "sft": {"train/selector/n_eff", "train/loss"}}
PICTURE = "example_weights_picture"
PNG = b"\x89PNG"
GAMES = ["step", "prompt", "completion", "turns", "score", "success", "error"]


@pytest.fixture
def train(tmp_path):
    """A function that trains with a tracker, in the test's folder."""

    def train(tracker):
        wandb = {"WANDB_DIR": str(tmp_path), "WANDB_MODE": "offline"}
        processes.run(
            "run_with_trackers", tmp_path, tracker, HF_TOKEN=TOKEN, TRACKIO_DIR=str(tmp_path / "trackio"), **wandb
        )
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path

    return train


def check_tables(run, games, weights):
    """What each tracker must show of a run: rows as dictionaries."""
    columns = ["step", "index", "weight", "score", "text"]
    assert [*weights[0]][:5] == columns and len(weights) == {"rl": 24, "sft": 12}[run]
    assert weights[0]["weight"] > 1 > weights[-1]["weight"] and {row["step"] for row in weights} == {
        {"rl": 4, "sft": 8}[run]
    }
    if run == "rl":
        assert len(games) == 3 and [*games[0]] == GAMES and games[0]["score"] == -2
        assert games[0]["prompt"] == "user: yes ." and games[0]["completion"].count("assistant: ") == 2


def test_tensorboard(train, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train("tensorboard")
    for run in ("rl", "sft"):
        (events,) = {path.parent for path in (tmp_path / run).rglob("events.out.tfevents*")}
        found = EventAccumulator(str(events)).Reload()
        assert METRICS[run] <= {*found.Tags()["scalars"]}
        assert {f"{name}/text_summary" for name in TABLES[run]} <= {*found.Tags()["tensors"]}
        assert found.Images(PICTURE)[-1].encoded_image_string.startswith(PNG)
        text = found.Tensors("example_weights/text_summary")[-1].tensor_proto.string_val[0].decode()
        assert text.startswith("| step | index | weight | score | text |")
        assert len(text.splitlines()) == 2 + {"rl": 24, "sft": 12}[run]
        if run == "rl":
            (games,) = found.Tensors("eval_games/text_summary")
            lines = games.tensor_proto.string_val[0].decode().splitlines()
            assert lines[0] == f"| {' | '.join(GAMES)} |" and len(lines) == 2 + 3
            assert lines[2].startswith("| 4 | user: yes . | assistant: ") and "<br>user: no ." in lines[2]


def test_wandb(train, tmp_path):
    pytest.importorskip("wandb")
    train("wandb")
    seen = set()
    for media in tmp_path.glob("wandb/offline-run-*/files/media"):
        files = sorted(media.rglob("*.table.json"), key=lambda path: int(path.name.split("_")[-2]))
        tables = {}
        for path in files:
            content = json.loads(path.read_text())
            tables[path.name.rsplit("_", 2)[0]] = [dict(zip(content["columns"], row)) for row in content["data"]]
        run = "rl" if "eval_games" in tables else "sft"
        seen.add(run)
        assert {*tables} == TABLES[run]
        check_tables(run, tables.get("eval_games"), tables["example_weights"])
        (picture,) = media.glob(f"images/{PICTURE}_*.png")
        assert picture.read_bytes().startswith(PNG)
    assert seen == {"rl", "sft"}


def test_trackio(train, tmp_path):
    pytest.importorskip("trackio")
    train("trackio")
    with sqlite3.connect(tmp_path / "trackio" / "huggingface.db") as database:
        rows = database.execute("SELECT run_name, metrics FROM metrics ORDER BY id").fetchall()
    for run in ("rl", "sft"):
        last = {}
        for name, metrics in rows:
            if name == run:
                last |= json.loads(metrics)
        assert METRICS[run] | TABLES[run] | {PICTURE} <= {*last}
        games = last["eval_games"]["_value"] if run == "rl" else None
        check_tables(run, games, last["example_weights"]["_value"])
        picture = tmp_path / "trackio" / "media" / last[PICTURE]["file_path"]
        assert picture.read_bytes().startswith(PNG)
