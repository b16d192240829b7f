"""How far weights can be trusted, measured on trusted rows that nothing trains on."""

import json
import random

import numpy as np
import pytest
import torch
from datasets import Dataset
from sft_tiny import make_args, make_model, make_pairs, make_rows, make_tokenizer
from transformers import PrinterCallback

from boost_trl import BilevelSFTSelfRefineConfig
from boost_trl.comparison.sft.contradiction_pool import contradiction_pool
from boost_trl.selection import weight_confidence
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.row_weights.results import keep_aside


def make_trainer(folder, validation, train=None, **overrides):
    kwargs = {name: overrides.pop(name) for name in ("eval_dataset",) if name in overrides}
    return BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        make_args(folder, **overrides),
        train_dataset=make_rows() if train is None else train,
        processing_class=make_tokenizer(),
        validation_dataset=validation,
        **kwargs,
    )


@pytest.mark.parametrize(
    ("rows", "share", "aside"), [(19, 0.2, 0), (20, 0.2, 4), (48, 0.2, 9), (1000, 0.2, 64), (48, 0.0, 0)]
)
def test_how_many_rows_are_kept_aside(rows, share, aside):
    dataset = Dataset.from_dict({"row": range(rows)})
    kept, others = keep_aside(dataset, share, seed=3)
    others = [] if others is None else others["row"][:]
    assert len(others) == aside and sorted([*kept["row"], *others]) == list(range(rows))
    if aside:
        assert (
            others
            == keep_aside(dataset, share, seed=3)[1]["row"][:]
            != keep_aside(dataset, share, seed=4)[1]["row"][:]
        )


def test_rows_kept_aside_are_not_trained_on_and_said(tmp_path, caplog):
    validation = Dataset.from_dict({"text": [f"w{i} w{i + 1} w{i + 2}" for i in range(30)]})
    trainer = make_trainer(tmp_path, validation, max_steps=40)
    assert caplog.text.count("6 of 30 rows of `validation_dataset` are kept out of training") == 1
    aside = {tuple(ids) for ids in trainer._trusted["input_ids"]}
    used = [tuple(ids) for ids in trainer._validation.dataset["input_ids"]]
    assert len(aside) == 6 and len(used) == 24 and not aside & set(used)
    seen, loss_sum = set(), trainer._validation.loss_sum
    trainer._validation.loss_sum = lambda model, inputs: (
        seen.update(tuple(row[row > 0].tolist()) for row in inputs["input_ids"]),
        loss_sum(model, inputs),
    )[1]
    trainer.train()
    assert not seen & aside and len(seen) == 24
    assert trainer.weight_confidence.num_trusted == 6


def test_measuring_by_rows_that_are_trained_on_is_said(tmp_path, caplog):
    texts = [f"w{i} w{i + 1} w{i + 2}" for i in range(30)]
    pool, validation = (Dataset.from_dict({"text": part}) for part in (texts[:12], texts[12:20]))
    held_out = Dataset.from_dict(
        {"text": [*texts[9:14], *texts[25:], texts[9]]}
    )  # four of the pool, two of validation
    make_trainer(tmp_path, validation, pool, eval_dataset=held_out)
    said = [
        record.message.split(" rows that measure")[0].removeprefix("[RANK 0] ")
        for record in caplog.records
        if "measure" in record.message
    ]
    assert said == ["4 of the 11", "2 of the 11"]
    caplog.clear()
    make_trainer(tmp_path, validation, pool, eval_dataset=held_out.select(range(5, 10)))
    assert "trained on too" not in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"confidence_share": 0.0},
        {"selector": "uniform"},
        {"validation_loss": "dpo"},
    ],
)
def test_all_rows_are_trained_on_where_nothing_is_measured(settings, tmp_path):
    validation = make_rows(30)
    if "validation_loss" in settings:
        validation = Dataset.from_dict({"prompt": ["w1 "] * 30, "chosen": ["w2 w3"] * 30, "rejected": ["w4"] * 30})
    trainer = make_trainer(tmp_path, validation, max_steps=1, **settings)
    trainer.train()
    assert len(trainer._validation.dataset) == 30
    assert trainer.measure_confidence() is None and not (tmp_path / "weight_confidence.json").exists()


@pytest.mark.parametrize("baseline", ["none", "token"])
@pytest.mark.parametrize(
    "layout", [{}, {"padding_free": True, "max_length": None}, {"packing": True, "max_length": 20}]
)
def test_the_measure_is_that_of_the_losses_by_plain_logits(layout, baseline, tmp_path):
    """At the end of an epoch, after a refresh that changes nothing else: training is the same without it."""
    runs = []
    for share in (0.2, 0.0):
        trainer = make_trainer(
            tmp_path,
            make_rows(5),
            eval_dataset={"first": make_pairs(9), "second": make_rows(3)},
            confidence_share=share,
            selector_baseline=baseline,
            max_steps=-1,
            num_train_epochs=2,
            **layout,
        )
        trainer.train()
        runs.append(trainer)
    measured, without = runs
    for mine, yours in zip(measured.model.parameters(), without.model.parameters(), strict=True):
        assert torch.equal(mine, yours)
    logs = [entry for entry in measured.state.log_history if "selector/trusted_auc" in entry]
    assert len(logs) == 2 and not any("selector/trusted_auc" in entry for entry in without.state.log_history)

    model, tokenizer, losses = measured.model.eval(), make_tokenizer(), []
    texts = [(0, row["text"]) for row in make_rows()]
    pairs = [(len(tokenizer(r["prompt"])["input_ids"]), r["prompt"] + r["completion"]) for r in make_pairs(9)]
    for start, text in [*texts, *pairs]:
        ids = torch.tensor([tokenizer(text + "<eos>")["input_ids"]])
        token_losses = -model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        if baseline == "token":
            token_losses = token_losses - measured._selector_step.token_baseline.lookup(ids[0, 1:])
        losses.append(token_losses[max(start - 1, 0) :].mean().item())
    expected = weight_confidence(losses[len(texts) :], losses[: len(texts)])
    assert logs[-1]["selector/trusted_auc"] == pytest.approx(expected.auc, abs=1e-6)
    assert measured.weight_confidence.to_dict() == pytest.approx(expected.to_dict(), abs=1e-6)


def pairs(count, bad_share, seed):
    """Questions of two words; a good answer follows from the first, a bad one contradicts it."""
    draw, rows = random.Random(seed), []
    for _ in range(count):
        first, good = draw.randrange(8), draw.random() >= bad_share
        answer = f"w{8 + first}" if good else f"w{24 + (5 * first + 3) % 8}"
        rows.append({"prompt": f"w{first} w{16 + draw.randrange(8)} ", "completion": answer, "good": good})
    return Dataset.from_list(rows)


@pytest.mark.parametrize(
    ("name", "pool", "trusted"),
    [("agree", 0.5, 0.0), ("near chance", 0.5, 0.5), ("near chance", 0.0, 0.0)],
)
def test_a_signal_is_told_from_chance(name, pool, trusted, tmp_path, caplog):
    """Half of the rows bad; validation that says nothing; and a pool in which there is nothing to select."""
    trainer = make_trainer(
        tmp_path,
        pairs(60, trusted, seed=1).remove_columns("good"),
        pairs(240, pool, seed=0),
        selector="rank",
        selector_baseline="token",
        label_column="good",
        max_steps=-1,
        num_train_epochs=6,
        per_device_train_batch_size=24,
        learning_rate=2e-2,
    )
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    confidence = trainer.weight_confidence
    assert confidence.num_trusted == 12
    # What `rank` itself looks like is the same everywhere.
    assert trainer.selector.largest_weight() > 2.5
    verdict = confidence.verdict()
    assert name in verdict
    assert caplog.text.count(verdict) == (name != "agree")
    assert verdict in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "weight_confidence.json").read_text())["auc"] == confidence.auc


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "auc", "share", "verdict"),
    [
        ({"bad_share": 0.6}, (0.68, 0.85), (0.3, 0.6), "agree with the weights"),
        ({"bad_share": 0.0}, (0.3, 0.55), (0.8, 1.0), "near chance"),
        ({"bad_share": 0.8, "bad_kinds": ["from the right"]}, (0.0, 0.2), (0.9, 1.0), "prefer rows unlike"),
    ],
    ids=["signal", "nothing to select", "the majority is bad"],
)
def test_the_contradiction_pool(bad, auc, share, verdict, tmp_path):
    """The demo's settings. The weights themselves look as sure in all three."""
    setting = contradiction_pool(0, **bad)
    trainer = BilevelSFTSelfRefineTrainer(
        model=setting.make_model(),
        processing_class=setting.tokenizer,
        args=BilevelSFTSelfRefineConfig(
            selector="rank",
            output_dir=str(tmp_path),
            use_cpu=True,
            bf16=False,
            num_train_epochs=6,
            per_device_train_batch_size=32,
            learning_rate=3e-3,
            max_length=32,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=setting.pool,
        validation_dataset=setting.validation,
        eval_dataset=setting.holdout,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    confidence = trainer.weight_confidence
    print(confidence)
    assert auc[0] < confidence.auc < auc[1] and share[0] < confidence.trusted_share < share[1]
    assert verdict in confidence.verdict()
    weights = np.array(trainer.example_weights()["weight"])
    assert weights.max() > 3 and weights.min() < 1e-3
