"""What cannot be weighted, and data or settings that make no sense, are refused before any training."""

import contextlib
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from sft_tiny import make_args, make_model, make_pairs, make_rows, make_tokenizer
from transformers import TrainerCallback
from trl import SFTConfig

from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.row_weights.checks import check_parallelism


def make_trainer(folder, dataset=None, validation=None, args=None, **kwargs):
    return BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(folder, **(args or {})),
        train_dataset=make_rows() if dataset is None else dataset,
        processing_class=make_tokenizer(),
        validation_dataset=validation,
        **kwargs,
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"selector": "best"}, "`selector` must be one of"),
        ({"max_length": "5"}, "`max_length` must be a whole number or None, got '5'"),
        ({"max_length": -1}, "`max_length` must be at least 1 or None, got -1"),
        ({"per_device_train_batch_size": "3"}, "`per_device_train_batch_size` must be a whole number, got '3'"),
        ({"learning_rate": "fast"}, "`learning_rate` must be a finite number and not negative, got 'fast'"),
        ({"selector_baseline": "word"}, "`selector_baseline` must be one of"),
        ({"selector_loss_at": "never"}, "`selector_loss_at` must be one of"),
        ({"selector_baseline": "token", "selection_loss": "sum"}, "needs `selection_loss='mean'`"),
        ({"selector": "bmo", "selector_loss_at": "updated"}, "weights a batch by its losses before the step"),
        ({"validation_loss": "ppo"}, "`validation_loss` must be"),
        ({"per_device_validation_batch_size": 0}, "`per_device_validation_batch_size` must be at least 1"),
        ({"bmo_refresh_steps": 0}, "`bmo_refresh_steps` must be at least 1"),
        ({"keep_fraction": 1.5}, r"`keep_fraction` must be in \(0, 1\], got 1.5"),
        ({"bmo_tau": -1.0}, "`bmo_tau` must be positive and finite, got -1.0"),
        ({"selector": "bmo", "selector_learning_rate": 2.0}, 'must be at most 1 with selector="bmo", got 2.0'),
        ({"dpo_beta": 0.0}, "`dpo_beta` must be positive"),
        ({"dpo_beta": float("nan")}, "`dpo_beta` must be a finite number, got nan"),
        ({"rho_init": float("nan")}, "`rho_init` must be a finite number or None, got nan"),
        ({"rho_init": "0.3"}, "`rho_init` must be a finite number or None, got '0.3'"),
        ({"rho_increment": None}, "`rho_increment` must be a finite number, got None"),
        ({"generation_temperature": float("nan")}, "`generation_temperature` must be a finite number"),
        ({"generation_temperature": None}, "`generation_temperature` must be a finite number, got None"),
        ({"importance_sampling_cap": float("nan")}, "`importance_sampling_cap` must be a finite number or None"),
        ({"importance_sampling_cap": "3"}, "`importance_sampling_cap` must be a finite number or None, got '3'"),
        ({"importance_sampling_cap": -1.0}, "`importance_sampling_cap` must be positive"),
        ({"generation_batch_size": None}, "`generation_batch_size` must be a whole number, got None"),
        ({"num_generations": 1.5}, "`num_generations` must be a whole number, got 1.5"),
        ({"bmo_refresh_steps": 1.5}, "`bmo_refresh_steps` must be a whole number, got 1.5"),
        ({"bmo_refresh_steps": True}, "`bmo_refresh_steps` must be a whole number, got True"),
        (
            {"per_device_validation_batch_size": 2.5},
            "`per_device_validation_batch_size` must be a whole number or None, got 2.5",
        ),
        ({"selector_max_step": float("nan")}, "`selector_max_step` must be a number, got nan"),
        ({"online_ratio": "half"}, "`online_ratio` must be a finite number, got 'half'"),
        ({"rho_init": 1.0}, r"must be in \[0, 1\)"),
        ({"rho_init": -0.1}, r"must be in \[0, 1\)"),
        ({"selector": "mixing", "rho_init": 1.5}, "for direct mixing"),
    ],
)
def test_settings(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_args(tmp_path, **settings)


def test_a_penalty_that_reaches_one_within_the_epochs(tmp_path):
    args = {"rho_init": 0.5, "rho_increment": 0.3, "max_steps": -1, "num_train_epochs": 3}
    with pytest.raises(ValueError, match="in epoch 3"):
        make_trainer(tmp_path, validation=make_rows(3), args=args)
    with pytest.raises(ValueError, match="in epoch 10 of 10"):
        make_trainer(tmp_path, validation=make_rows(3), args={"max_steps": -1, "num_train_epochs": 10})


@pytest.mark.parametrize("epochs", [0, -1, float("nan"), float("inf")])
def test_epochs_that_are_no_number_of_epochs(epochs, tmp_path):
    with pytest.raises(ValueError, match="`num_train_epochs` must be positive and finite, got"):
        make_trainer(tmp_path, validation=make_rows(3), args={"max_steps": -1, "num_train_epochs": epochs})


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        ([{"text": "w1"}], TypeError, "`eval_dataset` must be a `Dataset` or an `IterableDataset`, got `list`"),
        ({"good": make_rows(2), "bad": None}, TypeError, r"`eval_dataset\['bad'\]` must be a `Dataset` .* `NoneType`"),
        (Dataset.from_dict({"text": []}), ValueError, "`eval_dataset` is empty"),
    ],
)
def test_evaluation_sets(dataset, error, message, tmp_path):
    with pytest.raises(error, match=message):
        make_trainer(tmp_path, eval_dataset=dataset)


def test_numbers_of_numpy_are_numbers(tmp_path):
    args = make_args(tmp_path, num_generations=np.int64(1), rho_init=np.float32(0.25), selector_max_step=float("inf"))
    assert args.rho_init == 0.25


def test_a_penalty_that_reaches_one_within_max_steps(tmp_path):
    trainer = make_trainer(tmp_path, validation=make_rows(3), args={"rho_increment": 0.5, "max_steps": 15})
    with pytest.raises(ValueError, match="in epoch 3"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_an_epoch_that_ends_with_a_short_batch_is_one_epoch(tmp_path):
    """13 rows are five micro-batches and three steps; nine steps are three epochs, in which rho ends at 0.69."""
    trainer = make_trainer(
        tmp_path,
        validation=make_rows(3),
        args={"rho_init": 0.05, "rho_increment": 0.32, "gradient_accumulation_steps": 2, "max_steps": 9},
    )
    trainer.train()
    rhos = [entry["rho"] for entry in trainer.state.log_history if "rho" in entry]
    assert rhos == pytest.approx([0.05] * 3 + [0.37] * 3 + [0.69] * 3)


@pytest.mark.parametrize(
    ("validation", "args", "error", "message"),
    [
        (Dataset.from_dict({"text": []}), {}, ValueError, "`validation_dataset` is empty"),
        (make_rows(3).to_iterable_dataset(), {}, TypeError, "must be a `Dataset`"),
        (make_rows(3), {"validation_loss": "dpo"}, ValueError, "has no .'chosen', 'rejected'."),
        (Dataset.from_list([{"prompt": "w1", "chosen": "w2", "rejected": "w3"}]), {}, ValueError, "preference rows"),
        (
            Dataset.from_list([{"input_ids": [4, 5, 6], "labels": [-100, -100, 6]}]),
            {"max_length": 2},
            ValueError,
            "nothing is left of `validation_dataset`",
        ),
    ],
)
def test_validation_sets(validation, args, error, message, tmp_path):
    with pytest.raises(error, match=message):
        make_trainer(tmp_path, validation=validation, args=args)


@pytest.mark.parametrize(
    ("validation", "kwargs", "error", "message"),
    [
        ("trusted.jsonl", {}, TypeError, "`validation_dataset` must be a `Dataset`, got `str`"),
        (Dataset.from_dict({"text": []}), {}, ValueError, "`validation_dataset` is empty"),
        (Dataset.from_dict({"foo": ["w1"]}), {}, ValueError, "`validation_dataset` has none of the columns"),
        (
            Dataset.from_dict({"prompt": ["w1"]}),
            {},
            ValueError,
            "`validation_dataset` has .* 'prompt' and no 'completion'",
        ),
        (make_rows(3), {"args": {"validation_loss": "dpo"}}, ValueError, "has no .'chosen', 'rejected'."),
        (
            make_rows(3),
            {"formatting_func": lambda row: row["x"]},
            ValueError,
            "`formatting_func` fails .* KeyError: 'x'",
        ),
    ],
)
def test_the_validation_set_is_checked_before_the_pool_is_touched(
    validation, kwargs, error, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(Dataset, "map", lambda *args, **kwargs: pytest.fail("the pool is being prepared"))
    with pytest.raises(error, match=message):
        make_trainer(tmp_path, validation=validation, **kwargs)


@pytest.mark.parametrize(
    "setting", [{"example_id_column": "id"}, {"num_examples": 4}, {"source_names": ["a"]}, {"source_column": "site"}]
)
def test_settings_of_streaming_data_on_a_dataset(setting, tmp_path):
    with pytest.raises(ValueError, match=f"for streaming data only: `{next(iter(setting))}`"):
        make_trainer(tmp_path, make_pairs(), make_pairs(3), setting)


@pytest.mark.parametrize(
    ("settings", "columns", "named"),
    [
        ({}, {}, None),
        ({"weight_column": "weight"}, {"weight": [1.0, 2.0, 3.0]}, None),
        ({"weight_column": "quality"}, {"quality": [1.0, 2.0, 3.0]}, None),
        ({"weight_column": None}, {}, None),
        (
            {"selector": "bmo", "label_column": "good"},
            {},
            "plain supervised .* effect: `selector`, `label_column`",
        ),
        (
            {"rho_init": 0.2, "weight_column": "weight"},
            {"weight": [1.0, 2.0, 3.0]},
            "no weights are learned. Without effect: `rho_init`",
        ),
        ({"num_examples": 4}, {}, "effect: `num_examples`"),
        ({"validation_loss": max}, {}, "effect: `validation_loss`"),
    ],
)
def test_settings_without_effect_are_said(settings, columns, named, tmp_path, caplog):
    defaults = {"selector": "validated", "selector_baseline": "token"}
    make_trainer(tmp_path, make_rows(3, columns), args={**defaults, **settings})
    warnings = [record.message for record in caplog.records if "validation_dataset" in record.message]
    assert len(warnings) == (named is not None)
    if named:
        assert re.search(named, warnings[0])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0], "`train_dataset`, row 1, column 'weight': is -1.0;"),
        ([1.0, float("nan")], "`train_dataset`, row 1, column 'weight': is nan;"),
        ([None, 1.0], "`train_dataset`, row 0, column 'weight': is None;"),
        (["heavy", "light"], "`train_dataset`, row 0, column 'weight': is 'heavy';"),
        ([0.0, 0.0], "`train_dataset`, column 'weight': all rows have weight 0"),
    ],
)
def test_weight_columns(weights, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, make_rows(2, {"weight": weights}), args={"weight_column": "weight"})


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("config", [SFTConfig, BilevelSFTSelfRefineConfig])
def test_a_weight_column_that_nobody_asked_for_is_mentioned_once_and_does_nothing(config, learned, tmp_path, caplog):
    losses = []
    for columns in ({}, {"weight": [60.0, 70.0, 80.0, 90.0]}):
        trainer = BilevelSFTSelfRefineTrainer(
            make_model(),
            make_args(tmp_path, config, max_steps=2),
            train_dataset=make_rows(4, columns),
            processing_class=make_tokenizer(),
            validation_dataset=make_rows(5) if learned else None,
        )
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == losses[1] and len(losses[0]) == 2
    mentions = [record.message for record in caplog.records if "column 'weight'" in record.message]
    assert len(mentions) == 1 and "`weight_column='weight'`" in mentions[0]


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("stream", [True, False])
def test_a_weight_column_that_is_not_there(stream, learned, tmp_path):
    dataset = make_rows(4, {"row": [0, 1, 2, 3]})
    args = {"weight_column": "quality"}
    if stream:
        dataset = dataset.to_iterable_dataset()
        args |= {"example_id_column": "row", "num_examples": 4}
    with pytest.raises(ValueError, match=r"no column 'quality' \(`weight_column`\); it has \['row', 'text'\]"):
        make_trainer(tmp_path, dataset, make_rows(2) if learned else None, args)


@pytest.mark.parametrize(
    ("labels", "message"), [(None, "no column 'good'"), ([1, 0, 1], "column 'good' .*: holds int64; it must")]
)
def test_label_columns(labels, message, tmp_path):
    dataset = make_rows(3, {} if labels is None else {"good": labels})
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, dataset, make_rows(2), {"label_column": "good"})


def test_losses_of_the_whole_batch_cannot_be_weighted(tmp_path):
    with pytest.raises(ValueError, match="`compute_loss_func`"):
        make_trainer(tmp_path, validation=make_rows(3), compute_loss_func=lambda *args, **kwargs: 0)
    with pytest.raises(ValueError, match="`label_smoothing_factor`"):
        make_trainer(
            tmp_path,
            make_rows(2, {"weight": [1.0, 2.0]}),
            args={"label_smoothing_factor": 0.1, "weight_column": "weight"},
        )


@pytest.mark.parametrize(
    ("enabled", "tp_size", "padding_free", "learned", "message"),
    [
        ("sp", 1, False, False, "`sp_size=1`"),
        ("cp", 1, False, True, "learned example weights need whole sequences"),
        ("cp", 1, True, False, "one weight per row"),
        ("cp", 1, False, False, None),
        ("tp", 2, False, True, "`tp_size=1`"),
        ("tp", 2, False, False, None),
    ],
)
def test_parallelism(enabled, tp_size, padding_free, learned, message):
    config = SimpleNamespace(sp_enabled=enabled == "sp", cp_enabled=enabled == "cp")
    expected = pytest.raises(ValueError, match=message) if message else contextlib.nullcontext()
    with expected:
        check_parallelism(config, tp_size, padding_free, learned)


@pytest.mark.parametrize("where", ["model", "validation"])
def test_losses_that_are_not_finite(where, tmp_path):
    trainer = make_trainer(tmp_path, validation=make_rows(3), args={"per_device_train_batch_size": 13})
    with torch.no_grad():
        trainer.model.lm_head.weight[5] = float("nan") if where == "model" else 0.0
    if where == "validation":
        trainer._validation.loss_sum = lambda model, inputs: (next(model.parameters()).sum() * float("nan"), 1)
    before = trainer.model.model.embed_tokens.weight.clone()
    with pytest.raises(
        ValueError, match=r"the loss of row \d of `validation_dataset` is nan at step 1 \(13 of 13 rows"
    ):
        trainer.train()
    assert torch.equal(trainer.model.model.embed_tokens.weight, before)  # stopped before the step


def rows_with_a_rare_word(place, count=12):
    """The only row with w39, whose embedding the tests spoil."""
    rows = [{"text": f"w{i} w{i + 1} w{i + 2}"} for i in range(count)]
    rows[place]["text"] = "w39 w1 w2"
    return rows


def spoil_the_rare_word(trainer):
    word = trainer._tokenizer.convert_tokens_to_ids("w39")
    with torch.no_grad():
        trainer.model.model.embed_tokens.weight[word] = float("nan")


@pytest.mark.parametrize(
    "settings",
    [
        {"selector": "rank", "selector_baseline": "token"},
        {"selector": "bds"},
        {"selector": "bmo", "selector_baseline": "token"},
        {"selector": "bmo_exact", "selector_baseline": "token"},
        {"selector": "uniform", "selector_loss_at": "updated"},
    ],
    ids=str,
)
def test_the_row_of_a_loss_that_is_not_finite_is_the_users(settings, tmp_path):
    """Rows 0 and 2 have fixed weight 0, row 3 is dropped: row 8 is number 5 among those that are trained on."""
    rows = [{**row, "weight": float(i not in (0, 2))} for i, row in enumerate(rows_with_a_rare_word(8))]
    rows[3]["text"] = ""
    trainer = make_trainer(
        tmp_path,
        Dataset.from_list(rows),
        make_rows(3),
        {
            "weight_column": "weight",
            "eos_token": "<eos>",
            "max_length": 5,
            "per_device_train_batch_size": 12,
            **settings,
        },
    )
    spoil_the_rare_word(trainer)
    with pytest.raises(ValueError, match="the loss of row 8 of `train_dataset` is nan at step 1 ") as error:
        trainer.train()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"example_id_column": "number", "num_examples": 30}, "row number 20 of `train_dataset`"),
        ({"source_names": ["web", "books"]}, "source 'books'"),
    ],
)
def test_streamed_rows_are_named_by_what_the_user_gave_them(settings, name, tmp_path):
    rows = [
        {**row, "number": i + 12, "source": "books" if i == 8 else "web"}
        for i, row in enumerate(rows_with_a_rare_word(8))
    ]
    trainer = make_trainer(
        tmp_path,
        Dataset.from_list(rows).to_iterable_dataset(),
        make_rows(3),
        {"max_steps": 2, "selector_baseline": "token", "per_device_train_batch_size": 12, **settings},
    )
    spoil_the_rare_word(trainer)
    with pytest.raises(ValueError, match=f"the loss of {name} is nan at step 1 "):
        trainer.train()


def mean_of_logits(model, inputs):
    return model(input_ids=inputs["input_ids"]).logits.mean()


@pytest.mark.parametrize(
    "settings",
    [{}, {"shuffle_dataset": True}, {"validation_loss": mean_of_logits}, {"validation_loss": "dpo"}],
    ids=["sft", "shuffled", "callable", "dpo"],
)
def test_the_validation_row_of_a_loss_that_is_not_finite_is_the_users(settings, tmp_path):
    """Row 2 is left out, too short to learn from or, as a preference, too long; 4 of 24 rows are kept aside."""
    rows = rows_with_a_rare_word(20, 24)
    rows[2]["text"] = ""
    if settings.get("validation_loss") == "dpo":
        rows = [{"prompt": "w1 ", "chosen": row["text"], "rejected": "w2"} for row in rows]
        rows[2]["prompt"] = "w1 w2 w3 w4 w5 "
    args = {"eos_token": "<eos>", "max_length": 5, "per_device_validation_batch_size": 24, **settings}
    trainer = make_trainer(tmp_path, validation=Dataset.from_list(rows), args=args)
    spoil_the_rare_word(trainer)
    with pytest.raises(
        ValueError, match=r"the loss of row 20 of `validation_dataset` is nan at step 1 \(1 of \d"
    ) as error:
        trainer.train()
    assert "\n" not in str(error.value)


class ForgetAllAfterTheFirstStep(TrainerCallback):
    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.lm_head.weight.data.zero_()


def test_importance_ratios_that_explode(tmp_path):
    """Answers that a sharp model finds very unlikely become likely: the ratio overflows while every loss is finite."""
    trainer = make_trainer(
        tmp_path,
        make_pairs(),
        make_pairs(3),
        {
            "online_ratio": 0.5,
            "importance_sampling_cap": None,
            "generation_temperature": 1e6,
            "max_generation_length": 6,
            "per_device_train_batch_size": 12,
            "learning_rate": 1e-6,
        },
        callbacks=[ForgetAllAfterTheFirstStep()],
    )
    trainer.model.lm_head.weight.data.mul_(300)
    with pytest.raises(ValueError, match="at step 2 .* explode: set `importance_sampling_cap`"):
        trainer.train()
    assert all(parameter.isfinite().all() for parameter in trainer.model.parameters())


@pytest.mark.parametrize("at", ["current", "updated"])
def test_weights_that_overflow(at, tmp_path):
    trainer = make_trainer(
        tmp_path,
        make_rows(3, {"weight": [1.0, 3e38, 1.0]}),
        make_rows(2),
        {"selector_loss_at": at, "weight_column": "weight"},
    )
    before = trainer.model.model.embed_tokens.weight.clone()
    with pytest.raises(ValueError, match="the loss is inf at step 1 .* bad row in `train_dataset`"):
        trainer.train()
    assert torch.equal(trainer.model.model.embed_tokens.weight, before)


def test_a_collator_that_merges_rows(tmp_path):
    def merge(features):
        ids = torch.tensor([sum((list(feature["input_ids"]) for feature in features), [])])
        return {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}

    dataset = make_rows(4, {"weight": [1.0, 2.0, 1.0, 1.0]})
    trainer = make_trainer(tmp_path, dataset, args={"weight_column": "weight"}, data_collator=merge)
    with pytest.raises(ValueError, match="returned 1 rows for 3 examples"):
        trainer.train()
