"""Learned weights together with every other mode of SFTTrainer: the loss is γ · pool + validation and all rows are
seen."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from sft_tiny import make_args, make_conversations, make_model, make_moe_model, make_pairs, make_rows, make_tokenizer
from transformers import BitsAndBytesConfig, DataCollatorForSeq2Seq

from boost_trl.selection import Selector
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


LORA = LoraConfig(r=2, target_modules=["q_proj"])


def instructions(count=12):
    return Dataset.from_list([{"instruction": f"w{i}", "answer": f"w{i + 12} w{i + 3}"} for i in range(count)])


def prepared(count=12):
    rows = [[4 + (i * 5 + i // 8 + t) % 40 for t in range(3 + i % 4)] for i in range(count)]
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


class ForwardLosses:
    """
    The token losses of every training-mode forward, computed from the decoder's hidden states and the output head
    alone: one list per forward with (input_ids, token losses) of each sequence in it.
    """

    def __init__(self, model, labels):
        decoder = next(
            module
            for name, module in model.named_modules()
            if name.split(".")[-1] == "model" and hasattr(module, "embed_tokens")
        )
        self.head = model.get_output_embeddings()
        self.labels = labels
        self.forwards = []
        decoder.register_forward_hook(self, with_kwargs=True)

    @torch.no_grad()
    def __call__(self, decoder, args, kwargs, output):
        if not decoder.training:
            return
        log_probs = (output.last_hidden_state.float() @ self.head.weight.float().T).log_softmax(-1)
        if "position_ids" in kwargs:
            starts = (kwargs["position_ids"][0] == 0).nonzero().ravel().tolist()
            pieces = [(0, slice(*ends)) for ends in zip(starts, [*starts[1:], log_probs.size(1)])]
        else:
            pieces = [(row, slice(0, int(length))) for row, length in enumerate(kwargs["attention_mask"].sum(1))]
        forward = []
        for row, piece in pieces:
            ids = tuple(kwargs["input_ids"][row, piece].tolist())
            targets = torch.tensor(self.labels[ids][1:])
            losses = -log_probs[row, piece][:-1].gather(1, targets.clamp(min=0)[:, None])[:, 0]
            forward.append((ids, losses[targets != -100].double()))
        self.forwards.append(forward)


@pytest.mark.parametrize("name", MODES)
def test_mode(name, tmp_path):
    """Equations (22) and (24) of three steps from each forward's hidden states, rows recognised by their tokens."""
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
    rows = trainer.prepare_like_evaluation(data(12), "again").with_format(None)
    number = {tuple(row["input_ids"]): i for i, row in enumerate(rows)}
    assert len(number) == 12
    recorded = ForwardLosses(trainer.model, {tuple(row["input_ids"]): row["labels"] for row in rows})
    gamma, twin = 0.4 / 0.6, Selector(12, selector="bds")
    for selector in (trainer.selector, twin):
        selector.update(range(12), torch.linspace(0.0, 2.0, 12), 1.0)
    assert twin.weights().max() > 2 * twin.weights().min()
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "upper_loss" in entry]
    assert len(steps) >= 1
    tolerance, visited = 2e-2 if name == "bf16" else 1e-5, []
    for entry, pool, validation in zip(steps, recorded.forwards[::2], recorded.forwards[1::2], strict=True):
        ids = [number[tokens] for tokens, _ in pool]
        visited += ids
        weighted = sum(
            weight * losses.sum() for weight, (_, losses) in zip(twin.weights(ids).tolist(), pool, strict=True)
        )
        expected = gamma * float(weighted) / sum(len(losses) for _, losses in pool)
        expected += float(torch.cat([losses for _, losses in validation]).mean())
        # TRL logs the balancing loss itself.
        assert entry["loss"] == pytest.approx(expected + 0.1 * entry.get("aux_loss", 0.0), rel=tolerance)
        twin.update(ids, [float(losses.mean()) for _, losses in pool], gamma)
    assert sorted(visited) == list(range(12))
    torch.testing.assert_close(trainer.selector.logits(), twin.logits(), rtol=tolerance, atol=tolerance)
    assert ("aux_loss" in steps[0]) == (name == "moe")


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
