"""The model's own answers as a table in wandb, trackio and comet, played by modules of the test; `test_trackers.py` has real ones."""

import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from datasets import Dataset
from sft_tiny import make_args, make_model, make_pairs, make_tokenizer

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.common import trackers
from boost_trl.trainer.sft.answers import completions_table, is_rich_available


@pytest.fixture
def sent(monkeypatch):
    """What each tracker was sent: name, key and table."""
    tables = []

    def log(tracker):
        return lambda values: tables.extend((tracker, key, table) for key, table in values.items())

    class Table:
        def __new__(cls, dataframe):
            return dataframe

    experiment = SimpleNamespace(
        log_table=lambda filename, tabular_data: tables.append(("comet_ml", filename, tabular_data))
    )
    modules = {
        "wandb": SimpleNamespace(run=object(), log=log("wandb"), Table=Table),
        "trackio": SimpleNamespace(
            log=log("trackio"), Table=Table, context_vars=SimpleNamespace(current_run=SimpleNamespace(get=object))
        ),
        "comet_ml": SimpleNamespace(get_running_experiment=lambda: experiment),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(trackers, f"is_{name}_available", lambda: True)
    return tables


def generations(count=3):
    columns = {
        "index": list(range(count)),
        "question": [f"q{i}" for i in range(count)],
        "answers": [[f"a{i}", f"b{i}"] for i in range(count)],
        "status": [["used", "empty"]] * count,
        "log_probs": [[-1.0, None]] * count,
        "num_tokens": [[3, 1]] * count,
        "visits": [[1, 0]] * count,
        "ratio_mean": [[1.5, None]] * count,
        "ratio_max": [[1.5, None]] * count,
        "weight": [0.5 * i for i in range(count)],
    }
    return Dataset.from_dict(columns)


def trainer_reporting_to(*names, is_first=True):
    """A trainer as far as trackers look at it."""
    return SimpleNamespace(
        args=SimpleNamespace(report_to=[*names]),
        callback_handler=SimpleNamespace(callbacks=[]),
        is_world_process_zero=lambda: is_first,
    )


def test_a_table_has_one_row_per_answer():
    table = completions_table(generations(), step=4)
    assert table["prompt"].tolist() == ["q0", "q0", "q1", "q1", "q2", "q2"]
    assert table["completion"].tolist() == ["a0", "b0", "a1", "b1", "a2", "b2"]
    assert table["weight"].tolist() == [0, 0, 0.5, 0.5, 1, 1] and set(table["step"]) == {4}
    assert table["status"].tolist() == ["used", "empty"] * 3
    assert table["ratio_mean"].isna().tolist() == [False, True] * 3
    few = completions_table(generations(20), step=4, max_rows=5)
    assert len(few) == 5 and few["prompt"].iloc[0] == "q0" and few["prompt"].iloc[-1] == "q19"


@pytest.mark.parametrize("name", ["wandb", "trackio", "comet_ml"])
def test_only_the_trackers_of_report_to_get_it(name, sent):
    table = completions_table(generations(), step=0)
    trackers.log_table(trainer_reporting_to(name), "completions", table)
    ((tracker, key, received),) = sent
    assert (tracker, key) == (name, "completions.csv" if name == "comet_ml" else "completions")
    pd.testing.assert_frame_equal(received, table)
    trackers.log_table(trainer_reporting_to("tensorboard"), "completions", table)
    trackers.log_table(trainer_reporting_to(name, is_first=False), "completions", table)
    assert len(sent) == 1


def test_trackers_that_do_not_run_get_none(sent):
    sys.modules["wandb"].run = None
    sys.modules["comet_ml"].get_running_experiment = lambda: None
    sys.modules["trackio"].context_vars.current_run.get = lambda: None
    trackers.log_table(
        trainer_reporting_to("wandb", "comet_ml", "trackio"), "completions", completions_table(generations(), step=0)
    )
    assert not sent


def train(folder, **overrides):
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(folder, max_steps=3, online_ratio=0.75, generation_interval=2, max_generation_length=4, **overrides),
        train_dataset=make_pairs(16),
        processing_class=make_tokenizer(),
        validation_dataset=make_pairs(5),
    )
    trainer.args.report_to = ["wandb"]  # after the constructor, which would start a real run
    trainer.train()


def test_each_refresh_sends_its_answers_and_their_ratios_when_they_are_replaced(tmp_path, sent, capsys):
    train(tmp_path, log_completions=True, num_completions_to_print=2)
    tables = [table for _, _, table in sent]
    assert [int(table["step"].iloc[0]) for table in tables] == [0, 0, 2, 2]
    assert [bool(table["visits"].sum()) for table in tables] == [False, True, False, True]
    assert all(len(table) <= 2 for table in tables)
    first = Dataset.from_parquet(str(tmp_path / "generations" / "step-0.parquet"))
    assert set(tables[1]["completion"]) <= {answer for answers in first["answers"] for answer in answers}
    assert "Completion" in capsys.readouterr().out or not is_rich_available()


def test_nothing_is_sent_by_default(tmp_path, sent, capsys):
    train(tmp_path)
    assert not sent and "Completion" not in capsys.readouterr().out
