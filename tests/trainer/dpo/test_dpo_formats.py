"""Pairs in every format of TRL's, each weighted and named."""

import numpy as np
import pytest
from datasets import Dataset
from dpo_tiny import make_preferences, make_trainer
from sft_tiny import make_pairs, sentence

from boost_trl.trainer.row_weights.prepared_rows import first_of_equal, rows_also_in


def messages(role, text):
    return [{"role": role, "content": text}]


def conversations(row):
    return {
        "prompt": messages("user", row["prompt"].strip()),
        **{name: messages("assistant", row[name]) for name in ("chosen", "rejected")},
    }


def without_prompt(row):
    return {name: row["prompt"] + row[name] for name in ("chosen", "rejected")}


FORMATS = {
    "text": make_preferences(6).to_list(),
    "conversations": [conversations(row) for row in make_preferences(6)],
    "implicit prompts": [
        {name: row["prompt"] + row[name] for name in ("chosen", "rejected")}
        for row in map(conversations, make_preferences(6))
    ],
    "text with implicit prompts": [without_prompt(row) for row in make_preferences(6)],
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name, tmp_path):
    rows = Dataset.from_list(FORMATS[name])
    trainer = make_trainer(tmp_path, rows, rows.select(range(4)), max_steps=4)
    trainer.train()
    table = trainer.example_weights()
    assert np.std(table["weight"][:]) > 0 and table["index"][:] == [*range(6)]
    assert all(sentence(i, 3) in text for i, text in enumerate(table["text"][:]))


def test_equal_pairs_are_found(tmp_path):
    rows = make_preferences(6)
    twice = Dataset.from_list([rows[0], rows[1], rows[0], {**rows[1], "rejected": rows[1]["chosen"]}])
    trainer = make_trainer(tmp_path, rows, twice)
    assert first_of_equal(trainer._validation.dataset).tolist() == [0, 1, 0, 3]
    assert rows_also_in(trainer._validation.dataset, trainer.train_dataset) == 3


def test_the_pool_is_scored_by_trusted_answers_too(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path))
    trainer = make_trainer(tmp_path, validation=make_pairs(6), validation_loss="sft", selector="validated")
    trainer.train()
    assert trainer.selection_report["num_validation_rows"] == 6 and trainer.weight_confidence is None
