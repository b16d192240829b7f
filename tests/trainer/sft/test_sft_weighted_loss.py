"""Weighted losses, gradients and selector updates against plain logits, row by row."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig
from sft_tiny import GradientNorms, make_args, make_model, make_tokenizer

from boost_trl.selection import Selector
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


COUNT = 12
WEIGHTS = [0.5, 1.0, 3.0, 0.0, 1.5, 2.0, 0.25, 1.0, 0.75, 4.0, 1.0, 0.1]
LAYOUTS = {
    "padded": {"per_device_train_batch_size": COUNT},
    "accumulation": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 3},
    "padding_free": {"per_device_train_batch_size": COUNT, "padding_free": True, "max_length": None},
    "bfd": {"per_device_train_batch_size": COUNT, "packing": True, "max_length": 12},
    "bfd_split": {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 5,
        "packing": True,
        "packing_strategy": "bfd_split",
        "max_length": 6,
    },
    "wrapped": {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 5,
        "packing": True,
        "packing_strategy": "wrapped",
        "max_length": 7,
    },
    "shuffled": {"per_device_train_batch_size": COUNT, "shuffle_dataset": True},
    "dft": {"per_device_train_batch_size": COUNT, "loss_type": "dft"},
}


def rows_that_name_themselves(count=COUNT, first=0, longest=9):
    """Row i is written with tokens 4 + 3i to 6 + 3i only, so that any token tells its row wherever it went."""
    rows = []
    for i in range(first, first + count):
        generator = np.random.default_rng(i)
        ids = (4 + 3 * i + generator.integers(0, 3, size=3 + i % (longest - 2))).tolist()
        rows.append({"input_ids": ids, "labels": [-100, *ids[1:]] if i % 2 else ids})
    return Dataset.from_list(rows)


def validation_rows():
    return rows_that_name_themselves(2, first=COUNT, longest=6)


def row_of(token):
    return (token - 4) // 3


def documents(batch):
    """(input_ids, labels) of every sequence of a collated batch that attends to itself alone."""
    if "cu_seq_lens_q" in batch:
        starts = batch["cu_seq_lens_q"].tolist()
        for start, stop in zip(starts[:-1], starts[1:]):
            yield batch["input_ids"][:, start:stop], batch["labels"][:, start:stop]
    else:
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"]):
            yield ids[None, mask.bool()], labels[None, mask.bool()]


def token_losses(model, batches):
    """{row: list of token losses} from plain logits."""
    losses = {}
    for batch in batches:
        for ids, labels in documents(batch):
            log_probs = model(input_ids=ids).logits.float().log_softmax(-1)
            for t in range(ids.size(1) - 1):
                target = int(labels[0, t + 1])
                if target != -100:
                    losses.setdefault(row_of(target), []).append(-log_probs[0, t, target])
    return losses


def make_trainer(folder, dataset, validation=None, callbacks=None, peft=None, model=None, **overrides):
    weight_column = "weight" if "weight" in dataset.column_names else None
    return BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0) if model is None else model,
        make_args(folder, **{"max_steps": 1, "max_grad_norm": 0, "weight_column": weight_column, **overrides}),
        train_dataset=dataset,
        processing_class=make_tokenizer(),
        validation_dataset=validation,
        callbacks=callbacks,
        peft_config=peft,
    )


def assert_gradients(recorded, expected):
    for name, gradient in expected.items():
        torch.testing.assert_close(recorded[name], gradient, rtol=2e-4, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fixed_weights(layout, tmp_path):
    dataset = rows_that_name_themselves().add_column("weight", WEIGHTS)
    norms = GradientNorms()
    trainer = make_trainer(tmp_path, dataset, callbacks=[norms], **LAYOUTS[layout])
    batches = list(trainer.get_train_dataloader())
    trainer.train()
    model = make_model(attention_dropout=0.0)
    losses = token_losses(model, batches)
    assert sorted(losses) == [row for row in range(COUNT) if WEIGHTS[row] > 0]
    if LAYOUTS[layout].get("loss_type") == "dft":
        losses = {row: [loss * torch.exp(-loss).detach() for loss in tokens] for row, tokens in losses.items()}
    total = sum(WEIGHTS[row] * sum(tokens) for row, tokens in losses.items())
    loss = total / sum(len(tokens) for tokens in losses.values())
    loss.backward()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert_gradients(norms.steps[0], {n: p.grad for n, p in model.named_parameters() if p.grad is not None})


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_bilevel_step(layout, normalize, tmp_path):
    """Equations (22) and (24) for one optimizer batch, with weights that are not uniform."""
    norms = GradientNorms()
    validation = validation_rows()
    micro_batches = LAYOUTS[layout].get("gradient_accumulation_steps", 1)
    trainer = make_trainer(
        tmp_path,
        rows_that_name_themselves(),
        validation,
        callbacks=[norms],
        per_device_validation_batch_size=2,
        rho_init=0.4,
        normalize_penalty=normalize,
        **LAYOUTS[layout],
    )
    twin = Selector(COUNT, selector="bds")
    for selector in (trainer.selector, twin):
        selector.update(np.arange(COUNT), np.linspace(0.0, 2.0, COUNT), 1.0)
    weights = twin.weights().tolist()
    assert max(weights) > 2 * min(weights)
    batches = list(trainer.get_train_dataloader())
    assert len(batches) <= micro_batches
    trainer.train()

    model = make_model(attention_dropout=0.0)
    losses = token_losses(model, batches)
    gamma = 0.4 / 0.6
    c_b = {row: sum(map(float, tokens)) / len(tokens) for row, tokens in losses.items()}
    # Two rows in batches of two: every batch of the window holds both, so that repeats cancel in the mean.
    upper = token_losses(model, [trainer.data_collator(list(validation))])
    if LAYOUTS[layout].get("loss_type") == "dft":
        losses, upper = (
            {row: [loss * torch.exp(-loss).detach() for loss in tokens] for row, tokens in level.items()}
            for level in (losses, upper)
        )
    pool = sum(weights[row] * sum(tokens) for row, tokens in losses.items()) / sum(map(len, losses.values()))
    upper = sum(map(sum, upper.values())) / sum(map(len, upper.values()))
    loss = (0.4 * pool + 0.6 * upper) if normalize else gamma * pool + upper
    loss.backward()
    logs = trainer.state.log_history[0]
    assert logs["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert logs["upper_loss"] == pytest.approx(upper.item(), rel=1e-5)
    assert logs["gamma"] == pytest.approx(gamma)
    assert logs["weighted_lower_loss"] == pytest.approx(pool.item(), rel=1e-5)
    tokens = [loss.item() for row in losses.values() for loss in row]
    assert logs["lower_loss"] == pytest.approx(np.mean(tokens), rel=1e-5)
    assert_gradients(norms.steps[0], {n: p.grad for n, p in model.named_parameters() if p.grad is not None})

    rows = np.array(sorted(c_b))
    twin.update(rows, np.array([c_b[row] for row in rows]), gamma)
    torch.testing.assert_close(trainer.selector.logits(), twin.logits(), rtol=1e-5, atol=1e-6)
    assert trainer.selector.share_seen() == 1


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("at", ["current", "updated"])
def test_selection_loss(at, reduction, tmp_path):
    """What the selector saw, read off exact BMO-like logits ω = −τ C_b of a first visit."""
    trainer = make_trainer(
        tmp_path,
        rows_that_name_themselves(),
        validation_rows(),
        per_device_train_batch_size=5,
        gradient_accumulation_steps=3,
        selector_loss_at=at,
        selection_loss=reduction,
    )
    seen = {}
    trainer.selector.update = lambda ids, losses, gamma: seen.update(zip(ids.tolist(), losses.tolist()))
    batches = list(trainer.get_train_dataloader())
    trainer.train()
    with torch.no_grad():
        losses = token_losses(make_model(attention_dropout=0.0) if at == "current" else trainer.model.eval(), batches)
    expected = {row: float(sum(v)) / (1 if reduction == "sum" else len(v)) for row, v in losses.items()}
    assert seen == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "peft",
    [LoraConfig(r=2, target_modules=["q_proj"]), PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=3)],
    ids=["lora", "prompt"],
)
def test_adapters(peft, tmp_path):
    """Weights find their rows behind an adapter, and where it adds virtual tokens in front."""
    dataset = rows_that_name_themselves()
    trainer = make_trainer(tmp_path, dataset, validation_rows(), peft=peft, per_device_train_batch_size=COUNT)
    with torch.no_grad():
        expected = {}
        for row in range(COUNT):
            batch = trainer.data_collator([dataset[row]])
            fused = trainer.model.eval()(**batch, use_cache=False, fused_lm_head=True)
            expected[row] = -float(fused.log_probs.sum() / fused.label_mask.sum())
    seen = {}
    trainer.selector.update = lambda ids, losses, gamma: seen.update(zip(ids.tolist(), losses.tolist()))
    trainer.train()
    assert seen == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("layout", ["padded", "padding_free", "wrapped"])
def test_weight_zero_is_leaving_the_row_out(layout, tmp_path):
    overrides = {**LAYOUTS[layout], "max_steps": 4, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 1}
    dataset = rows_that_name_themselves()
    kept = [row for row in range(COUNT) if WEIGHTS[row] > 0]
    runs = []
    for rows in (dataset.add_column("weight", WEIGHTS), dataset.add_column("weight", WEIGHTS).select(kept)):
        trainer = make_trainer(tmp_path, rows, validation_rows(), **overrides)
        trainer.train()
        runs.append(trainer)
    for mine, yours in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(mine, yours)
    table, reduced = runs[0].example_weights(), runs[1].example_weights()
    assert len(table) == COUNT
    assert table.select(kept)["weight"][:] == reduced["weight"][:]
    assert [table["weight"][row] for row in range(COUNT) if row not in kept] == [0.0]


def test_same_weights_for_every_split_of_the_batch(tmp_path):
    results = []
    for size, steps in ((12, 1), (4, 3), (2, 6)):
        trainer = make_trainer(
            tmp_path,
            rows_that_name_themselves(),
            validation_rows(),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=4,
            selector_baseline="token",
        )
        trainer.train()
        results.append((trainer.selector.logits(), trainer.state.log_history[-2]["upper_loss"]))
    for logits, upper in results[1:]:
        torch.testing.assert_close(logits, results[0][0], rtol=1e-4, atol=1e-5)
        assert upper == pytest.approx(results[0][1], rel=1e-5)
    assert results[0][0].std() > 0.01
