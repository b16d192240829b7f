"""Rows of which preparation leaves nothing to learn: no weight, no share of the softmax, never exported."""

import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from sft_tiny import make_args, make_model, make_rows, make_tokenizer, sentence

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


COUNT = 24


def pool(**columns):
    """Every other question is longer than `max_length`."""
    rows = [
        {"prompt": sentence(i, 14 if i % 2 else 3) + " ", "completion": sentence(i + 5, 2 + i % 4), "source": f"s{i}"}
        for i in range(COUNT)
    ]
    for name, values in columns.items():
        for row, value in zip(rows, values):
            row[name] = value
    return Dataset.from_list(rows)


def make_trainer(folder, dataset, learned=True, **overrides):
    settings = {
        "selector": "rank",
        "selector_baseline": "token",
        "max_steps": 24,
        "max_length": 12,
        "rho_increment": 0.0,
    }
    return BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(folder, **{**settings, **overrides}),
        train_dataset=dataset,
        processing_class=make_tokenizer(),
        validation_dataset=make_rows(6) if learned else None,
    )


def watch(trainer):
    """(row numbers, weights) of each update."""
    seen, update = [], trainer.selector.update

    def see(ids, losses, gamma):
        seen.append((np.asarray(ids), trainer.selector.weights(ids).numpy()))
        update(ids, losses, gamma)

    trainer.selector.update = see
    return seen


@pytest.mark.parametrize("layout", [{}, {"packing": True}, {"gradient_accumulation_steps": 2}], ids=str)
def test_dropped_rows_take_no_weight_from_the_others(layout, tmp_path, caplog):
    labels = [i % 4 == 0 for i in range(COUNT)]
    dataset = pool(good=labels)
    trainer = make_trainer(tmp_path, dataset, label_column="good", **layout)
    seen = watch(trainer)
    trainer.train()
    assert trainer.selector.num_examples == trainer.pool.num_examples == 12
    assert set(np.concatenate([ids for ids, _ in seen])) == set(range(12))
    assert trainer.selector.share_seen() == 1
    np.testing.assert_array_equal(trainer.pool.labels, labels[::2])

    table = trainer.example_weights()
    weights, scores = np.array(table["weight"][:]), np.array(table["score"][:])
    assert len(table) == COUNT and table["source"][:] == dataset["source"][:]
    assert (weights[1::2] == 0).all() and np.isneginf(scores[1::2]).all()
    assert weights[::2].mean() == pytest.approx(1, rel=1e-5) and weights[::2].std() > 0.1
    for number in range(12):
        assert trainer.pool.original_row(number) == 2 * number
    best = trainer.export_selected(dataset, top_fraction=0.5)
    assert {int(source[1:]) % 2 for source in best["source"]} == {0} and len(best) == 12
    messages = [
        r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "max_length" in r.getMessage()
    ]
    assert len(messages) == 1 and "12 of 24 rows of `train_dataset`" in messages[0] and "row 1 " in messages[0]


@pytest.mark.parametrize(
    "overrides",
    [
        {"truncation_mode": "keep_end"},
        {"max_length": 40},
        {"packing": True, "packing_strategy": "wrapped"},
        {"max_length": None, "padding_free": True},
    ],
    ids=str,
)
def test_what_is_kept_counts(overrides, tmp_path, caplog):
    trainer = make_trainer(tmp_path, pool(), **overrides)
    assert trainer.selector.num_examples == COUNT
    assert not any("left out" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("layout", [{"max_length": 30}, {"packing": True, "max_length": 8}], ids=["padded", "packed"])
def test_rows_of_one_token_have_nothing_to_predict(layout, tmp_path):
    """TRL keeps them, but a row's first token is never predicted."""
    lengths = [1, 3, 1, 4, 2, 5, 1]
    rows = [{"input_ids": [4 + i] * length, "labels": [4 + i] * length} for i, length in enumerate(lengths)]
    rows.append({"input_ids": [20, 21, 22], "labels": [20, -100, -100]})
    trainer = make_trainer(tmp_path, Dataset.from_list(rows), max_steps=6, **layout)
    seen = watch(trainer)
    trainer.train()
    assert np.flatnonzero(trainer.example_weights()["weight"]).tolist() == [1, 3, 4, 5]
    assert set(np.concatenate([ids for ids, _ in seen])) == {0, 1, 2, 3}


def test_nothing_left_is_said_before_training(tmp_path):
    with pytest.raises(ValueError, match="nothing is left of `train_dataset`.*`max_length`"):
        make_trainer(tmp_path, pool().select(range(1, COUNT, 2)))


def test_fixed_and_learned_weights_leave_out_their_own_rows(tmp_path):
    """Rows 0, 1, 2 have fixed weight 0, odd rows are dropped."""
    fixed = [0.0] * 3 + [2.0] * (COUNT - 3)
    dataset = pool(weight=fixed)
    kept = list(range(4, COUNT, 2))
    for learned in (True, False):
        trainer = make_trainer(tmp_path, dataset, learned, weight_column="weight", max_steps=8)
        trainer.train()
        table = trainer.example_weights()
        assert np.flatnonzero(table["weight"]).tolist() == kept
        assert np.mean(table.select(kept)["weight"]) == pytest.approx(2, rel=1e-5)
        assert [trainer.pool.original_row(number) for number in range(len(kept))] == kept


def test_it_trains_as_if_they_had_never_been_there(tmp_path):
    runs = []
    for data in (pool(), pool().select(range(0, COUNT, 2))):
        runs.append(make_trainer(tmp_path / str(len(runs)), data))
        runs[-1].train()
    assert torch.equal(runs[0].selector.logits(), runs[1].selector.logits())
    for mine, yours in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(mine, yours)


def test_a_resumed_run_drops_the_same(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 5, "max_steps": 8}
    whole = make_trainer(tmp_path / "a", pool(), **saving)
    whole.train()
    resumed = make_trainer(tmp_path / "b", pool(), **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))
    assert torch.equal(resumed.selector.logits(), whole.selector.logits())
    other = make_trainer(tmp_path / "c", pool(), **saving, truncation_mode="keep_end")
    with pytest.raises(ValueError, match="truncation_mode"):
        other.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-5"))
