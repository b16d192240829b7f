"""Without a validation set, and with all weights 1, training is SFTTrainer's to the last bit."""

import inspect
from dataclasses import dataclass

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from sft_tiny import (
    logs_without_times,
    make_args,
    make_conversations,
    make_model,
    make_moe_model,
    make_pairs,
    make_rows,
    make_tokenizer,
)
from transformers import Seq2SeqTrainingArguments, TrainingArguments
from trl import SFTConfig, SFTTrainer

from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


CASES = {
    "padded": {},
    "accumulation": {"gradient_accumulation_steps": 2},
    "bf16": {"bf16": True},
    "dft": {"loss_type": "dft"},
    "lora": {"peft": True},
    "moe": {"moe": True},
    "checkpointing": {"gradient_checkpointing": True},
    "padding_free": {"padding_free": True, "max_length": None},
    "bfd": {"packing": True, "packing_strategy": "bfd", "max_length": 12},
    "bfd_split": {"packing": True, "packing_strategy": "bfd_split", "max_length": 9},
    "wrapped": {"packing": True, "packing_strategy": "wrapped", "max_length": 10},
    "multiple_of": {"padding_free": True, "max_length": None, "pad_to_multiple_of": 8},
    "truncated": {"max_length": 6},
    "shuffled": {"shuffle_dataset": True},
    "pairs": {"data": "pairs"},
    "conversations": {"data": "conversations", "assistant_only_loss": True},
    "wrapped_shuffled_dft": {
        "packing": True,
        "packing_strategy": "wrapped",
        "max_length": 10,
        "shuffle_dataset": True,
        "loss_type": "dft",
    },
    "bfd_accumulation_lora": {"packing": True, "max_length": 12, "gradient_accumulation_steps": 2, "peft": True},
    "epochs": {"max_steps": -1, "num_train_epochs": 2, "gradient_accumulation_steps": 2},
    "many_epochs": {"max_steps": -1, "num_train_epochs": 11, "per_device_train_batch_size": 13},
}
DATA = {"rows": make_rows, "pairs": make_pairs, "conversations": make_conversations}


def run(cls, folder, weighted=False, moe=False, peft=False, data="rows", **overrides):
    config = BilevelSFTSelfRefineConfig if cls is BilevelSFTSelfRefineTrainer else SFTConfig
    dataset = DATA[data]()
    if weighted:
        dataset = dataset.add_column("weight", [1.0] * len(dataset))
    trainer = cls(
        model=make_moe_model() if moe else make_model(),
        args=make_args(folder, config, **({"weight_column": "weight"} if weighted else {}), **overrides),
        train_dataset=dataset,
        eval_dataset=DATA[data](5),
        processing_class=make_tokenizer(),
        peft_config=LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.1) if peft else None,
    )
    trainer.train()
    trainer.evaluate()
    return trainer, torch.get_rng_state()


def assert_identical(ours, theirs):
    (ours, our_rng), (theirs, their_rng) = ours, theirs
    assert logs_without_times(ours) == logs_without_times(theirs)
    assert len(theirs.state.log_history) >= 4
    for (name, mine), (_, yours) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        assert torch.equal(mine, yours), name
    assert torch.equal(our_rng, their_rng)


@pytest.mark.parametrize("name", CASES)
def test_bit_identical_to_sft_trainer(name, tmp_path):
    theirs = run(SFTTrainer, tmp_path, **CASES[name])
    assert_identical(run(BilevelSFTSelfRefineTrainer, tmp_path, **CASES[name]), theirs)
    assert_identical(run(BilevelSFTSelfRefineTrainer, tmp_path, weighted=True, **CASES[name]), theirs)


def test_constructor_is_sft_trainers_plus_the_validation_set():
    ours = list(inspect.signature(BilevelSFTSelfRefineTrainer.__init__).parameters.values())
    theirs = list(inspect.signature(SFTTrainer.__init__).parameters.values())
    assert [(p.name, p.kind, p.default) for p in ours[: len(theirs)]] == [(p.name, p.kind, p.default) for p in theirs]
    assert [(p.name, p.kind) for p in ours[len(theirs) :]] == [("validation_dataset", inspect.Parameter.KEYWORD_ONLY)]


@dataclass
class OwnConfig(SFTConfig):
    """With a field of the user's."""

    own: int = 3


CONFIGS = [SFTConfig, OwnConfig, TrainingArguments, Seq2SeqTrainingArguments]


@pytest.mark.parametrize("config", CONFIGS)
def test_other_training_arguments_are_accepted(config, tmp_path):
    args = make_args(tmp_path, config, hub_token="secret", seed=3)
    if issubclass(config, SFTConfig):
        args.eos_token = "<eos>"
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(),
        args,
        train_dataset=make_rows(),
        processing_class=make_tokenizer(),
        validation_dataset=make_rows(5),
    )
    assert isinstance(trainer.args, BilevelSFTSelfRefineConfig)
    for name in ("hub_token", "seed", "learning_rate", "max_steps", "eos_token"):
        assert getattr(trainer.args, name) == getattr(args, name, None)
    if config is OwnConfig:
        assert trainer.args.own == 3


@pytest.mark.parametrize("config", [*CONFIGS, BilevelSFTSelfRefineConfig])
def test_without_a_validation_set_arguments_stay_the_users_own(config, tmp_path):
    args = make_args(tmp_path, config, num_train_epochs=0, max_steps=-1)
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(), args, train_dataset=make_rows(), processing_class=make_tokenizer()
    )
    # As TRL has it, training arguments that are no `SFTConfig` become one.
    assert trainer.args is args or not issubclass(config, SFTConfig)
    assert isinstance(trainer.args, SFTConfig)
    assert trainer.args.num_train_epochs == 0


def test_config_survives_a_round_trip(tmp_path):
    args = make_args(tmp_path, selector="rank", validation_loss=max)
    assert args.to_dict()["validation_loss"] == "max"
    assert '"selector": "rank"' in args.to_json_string()
    again = BilevelSFTSelfRefineConfig(**make_args(tmp_path, rho_init=0.3).to_dict())
    assert again.rho_init == 0.3


def test_train_dataset_errors_stay_trls(tmp_path):
    args = make_args(tmp_path)
    with pytest.raises(ValueError, match="`train_dataset` is required"):
        BilevelSFTSelfRefineTrainer(make_model(), args, processing_class=make_tokenizer())
    with pytest.raises(TypeError, match="must be a `Dataset`"):
        BilevelSFTSelfRefineTrainer(make_model(), args, train_dataset=[1], processing_class=make_tokenizer())
    weighted = make_rows(3, {"weight": [1.0, 2.0, 1.0]}).with_transform(lambda rows: rows)
    assert isinstance(weighted, Dataset)
    args = make_args(tmp_path, weight_column="weight")
    with pytest.raises(ValueError, match="with_transform"):
        BilevelSFTSelfRefineTrainer(make_model(), args, train_dataset=weighted, processing_class=make_tokenizer())
