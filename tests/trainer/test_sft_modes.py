"""Learned weights together with every other mode of SFTTrainer: the loss is γ · pool + validation and all rows are seen."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from sft_tiny import make_args, make_conversations, make_model, make_moe_model, make_pairs, make_rows, make_tokenizer
from transformers import BitsAndBytesConfig, DataCollatorForSeq2Seq

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


LORA = LoraConfig(r=2, target_modules=["q_proj"])


def instructions(count=12):
    return Dataset.from_list([{"instruction": f"w{i}", "answer": f"w{i + 12} w{i + 3}"} for i in range(count)])


def prepared(count=12):
    rows = [[4 + (i * 5 + t) % 40 for t in range(3 + i % 4)] for i in range(count)]
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


MODES = {
    "lora": {"kwargs": {"peft_config": LORA}},
    "peft_model": {"model": lambda: get_peft_model(make_model(), LORA)},
    "moe": {"model": make_moe_model},
    "bf16": {"args": {"bf16": True}},
    "checkpointing": {"args": {"gradient_checkpointing": True}},
    "completion_only": {"data": make_pairs},
    "assistant_only": {"data": make_conversations, "args": {"assistant_only_loss": True}},
    "assistant_only_packed": {
        "data": make_conversations,
        "args": {"assistant_only_loss": True, "packing": True, "max_length": 12},
    },
    "formatting": {
        "data": instructions,
        "kwargs": {"formatting_func": lambda row: f"{row['instruction']} {row['answer']}"},
    },
    "own_collator": {
        "data": prepared,
        "kwargs": {"data_collator": DataCollatorForSeq2Seq(make_tokenizer())},
    },
    "skip_preparation": {"data": prepared, "args": {"dataset_kwargs": {"skip_prepare_dataset": True}}},
    "torch_format": {"data": lambda count: prepared(count).with_format("torch", columns=["input_ids", "labels"])},
    "all_columns": {"args": {"remove_unused_columns": False}},
    "workers": {"args": {"dataloader_num_workers": 1}},
    "split_batches": {"args": {"accelerator_config": {"split_batches": True}}},
    "neftune": {"args": {"neftune_noise_alpha": 1.0}},
}


@pytest.mark.parametrize("name", MODES)
def test_mode(name, tmp_path):
    mode = MODES[name]
    data = mode.get("data", make_rows)
    trainer = BilevelSFTSelfRefineTrainer(
        mode.get("model", make_model)(),
        make_args(
            tmp_path,
            **{"per_device_train_batch_size": 4, "max_steps": -1, "num_train_epochs": 1, "rho_init": 0.4},
            **mode.get("args", {}),
        ),
        train_dataset=data(12),
        processing_class=make_tokenizer(),
        validation_dataset=data(4),
        **mode.get("kwargs", {}),
    )
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "upper_loss" in entry]
    assert len(steps) >= 1
    for entry in steps:
        expected = 0.4 / 0.6 * entry["weighted_lower_loss"] + entry["upper_loss"] + 0.1 * entry.get("aux_loss", 0.0)
        assert entry["loss"] == pytest.approx(expected, rel=1e-3 if name == "bf16" else 1e-5)
    assert ("aux_loss" in steps[0]) == (name == "moe")
    assert trainer.selector.share_seen() == 1
    assert trainer.selector.logits().std() > 0


def test_quantised_model(tmp_path):
    make_model(hidden_size=64, intermediate_size=64).save_pretrained(tmp_path / "model")
    trainer = BilevelSFTSelfRefineTrainer(
        str(tmp_path / "model"),
        make_args(tmp_path, max_steps=2),
        train_dataset=make_rows(),
        processing_class=make_tokenizer(),
        quantization_config=BitsAndBytesConfig(load_in_4bit=True),
        peft_config=LORA,
        validation_dataset=make_rows(3),
    )
    before = {name: p.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    assert trainer.model.is_loaded_in_4bit
    assert any(not torch.equal(p, before[n]) for n, p in trainer.model.named_parameters() if n in before)
    assert trainer.selector.weights().dtype == torch.float32
    assert trainer.selector.num_updates == 2


def test_evaluation_sees_no_weights(tmp_path):
    """Several evaluation sets, metrics from logits, and a set given later: the losses of a trainer without weights."""
    results = []
    for validation in (None, make_rows(3)):
        trainer = BilevelSFTSelfRefineTrainer(
            make_model(),
            make_args(tmp_path),
            train_dataset=make_rows(),
            eval_dataset={"train": make_rows(), "few": make_rows(2)},
            processing_class=make_tokenizer(),
            compute_metrics=lambda prediction: {"columns": float(prediction.predictions.shape[-1])},
            validation_dataset=validation,
        )
        metrics = {**trainer.evaluate(), **trainer.evaluate(make_pairs(3), metric_key_prefix="eval_later")}
        # The training set as it was prepared carries row numbers, which evaluation must ignore.
        metrics |= trainer.evaluate(trainer.train_dataset, metric_key_prefix="eval_again")
        results.append({k: v for k, v in metrics.items() if not k.endswith(("runtime", "per_second", "time"))})
    assert results[0] == results[1]
    assert results[0]["eval_train_columns"] == 48
