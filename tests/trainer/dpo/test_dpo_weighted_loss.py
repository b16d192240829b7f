"""The weighted loss, its gradients and what the selector sees, against each pair's loss by its definition."""

import numpy as np
import pytest
import torch
from dpo_tiny import make_preferences, make_trainer, plain_pair_loss, reference, tokens_of
from peft import LoraConfig, PromptTuningConfig
from sft_tiny import GradientNorms, make_model, make_pairs

from boost_trl.losses.preference import PAIR_LOSSES
from boost_trl.selection import Selector


COUNT = 12
WEIGHTS = [0.5, 2.0, 0.0, 1.0, 3.0, 0.25, 1.5, 0.0, 1.0, 0.75, 1.0, 2.5]
OPTIONS = {"max_steps": 1, "max_grad_norm": 0, "beta": 0.5}


def exact_model():
    return make_model(attention_dropout=0.0)


def pair_losses(rows, loss_type="sigmoid", model=None):
    model = exact_model() if model is None else model
    options = {"beta": 0.5, "loss_type": loss_type, "smoothing": 0.2 if loss_type == "robust" else 0.0}
    return model, [plain_pair_loss(model, reference(), row, **options) for row in rows]


def assert_gradients(recorded, model):
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            recorded[name], parameter.grad, rtol=2e-4, atol=1e-7, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("loss_type", PAIR_LOSSES)
def test_fixed_weights(loss_type, tmp_path):
    norms, rows = GradientNorms(), make_preferences(COUNT)
    smoothing = {"label_smoothing": 0.2} if loss_type == "robust" else {}
    trainer = make_trainer(
        tmp_path,
        rows.add_column("weight", WEIGHTS),
        model=exact_model(),
        callbacks=[norms],
        weight_column="weight",
        per_device_train_batch_size=COUNT,
        loss_type=[loss_type],
        **smoothing,
        **OPTIONS,
    )
    trainer.train()
    model, losses = pair_losses(rows, loss_type)
    kept = [(weight, loss) for weight, loss in zip(WEIGHTS, losses) if weight > 0]  # the others are left out
    loss = sum(weight * loss for weight, loss in kept) / len(kept)
    loss.backward()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert_gradients(norms.steps[0], model)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("normalize", [False, True])
def test_bilevel_step(normalize, accumulation, tmp_path):
    """Equations (40) and (25) for one optimizer batch, with weights that are not uniform."""
    norms, rows, trusted = GradientNorms(), make_preferences(COUNT), make_preferences(2, first=20)
    trainer = make_trainer(
        tmp_path,
        rows,
        trusted,
        model=exact_model(),
        callbacks=[norms],
        per_device_train_batch_size=COUNT // accumulation,
        gradient_accumulation_steps=accumulation,
        per_device_validation_batch_size=2,
        rho_init=0.4,
        normalize_penalty=normalize,
        **OPTIONS,
    )
    twin = Selector(COUNT, selector="bds")
    for selector in (trainer.selector, twin):
        selector.update(np.arange(COUNT), np.linspace(0.0, 2.0, COUNT), 1.0)
    weights = twin.weights().tolist()
    assert max(weights) > 2 * min(weights)
    trainer.train()

    model, losses = pair_losses([*rows, *trusted])
    pool = sum(weight * loss for weight, loss in zip(weights, losses)) / COUNT
    upper, gamma = sum(losses[COUNT:]) / 2, 0.4 / 0.6
    loss = (0.4 * pool + 0.6 * upper) if normalize else gamma * pool + upper
    loss.backward()
    logs = trainer.state.log_history[0]
    assert logs["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert logs["upper_loss"] == pytest.approx(upper.item(), rel=1e-5)
    assert logs["weighted_lower_loss"] == pytest.approx(pool.item(), rel=1e-5)
    assert logs["lower_loss"] == pytest.approx(np.mean([float(loss) for loss in losses[:COUNT]]), rel=1e-5)
    assert_gradients(norms.steps[0], model)
    twin.update(np.arange(COUNT), [float(loss) for loss in losses[:COUNT]], gamma)
    torch.testing.assert_close(trainer.selector.logits(), twin.logits(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("at", ["current", "updated"])
@pytest.mark.parametrize("selector", ["bds", "rank", "bmo_exact"])
def test_the_selector_sees_each_pairs_loss(selector, at, tmp_path):
    rows = make_preferences(COUNT)
    trainer = make_trainer(
        tmp_path,
        rows,
        make_preferences(4, first=20),
        model=exact_model(),
        selector=selector,
        selector_loss_at=at,
        per_device_train_batch_size=5,
        gradient_accumulation_steps=3,
        **OPTIONS,
    )
    seen = {}
    name = "refresh" if selector == "bmo_exact" else "update"
    setattr(trainer.selector, name, lambda ids, losses, gamma=None: seen.update(zip(ids.tolist(), losses.tolist())))
    trainer.train()
    with torch.no_grad():
        is_after = at == "updated" and selector != "bmo_exact"
        _, losses = pair_losses(rows, model=trainer.model.eval() if is_after else None)
    assert seen == pytest.approx(dict(enumerate(map(float, losses))), rel=1e-5)


def test_trusted_answers(tmp_path):
    """L_0 of `validation_loss="sft"` is the mean over all tokens of the answers of the whole optimizer batch."""
    rows, answers = make_preferences(COUNT), make_pairs(6)
    trainer = make_trainer(
        tmp_path,
        rows,
        answers,
        model=exact_model(),
        validation_loss="sft",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=3,
        per_device_validation_batch_size=2,
        selector="mixing",
        rho_init=0.25,
        **OPTIONS,
    )
    trainer.train()
    model, total, count = exact_model(), 0.0, 0
    for row in answers:
        ids, length = next(tokens_of({"prompt": row["prompt"], "chosen": row["completion"], "rejected": "w1"}))
        log_probs = model(input_ids=ids).logits.double().log_softmax(-1)[0, :-1]
        total -= float(log_probs.gather(1, ids[0, 1:, None])[-length:].sum())
        count += length
    pool = float(sum(pair_losses(rows)[1])) / COUNT
    logs = trainer.state.log_history[0]
    assert logs["upper_loss"] == pytest.approx(total / count, rel=1e-5)
    assert logs["loss"] == pytest.approx(0.25 * pool + 0.75 * total / count, rel=1e-5)


@pytest.mark.parametrize(
    "peft",
    [LoraConfig(r=2, target_modules=["q_proj"]), PromptTuningConfig("CAUSAL_LM", num_virtual_tokens=3)],
    ids=["lora", "prompt"],
)
def test_adapters(peft, tmp_path):
    """Without a reference model that is the adapter's model without it; a prompt's virtual tokens stand in front."""
    trainer = make_trainer(
        tmp_path,
        validation=make_preferences(4, first=20),
        model=exact_model(),
        peft_config=peft,
        ref_model=None,
        per_device_train_batch_size=COUNT,
        max_steps=1,
    )
    seen = {}
    trainer.selector.update = lambda ids, losses, gamma: seen.update(zip(ids.tolist(), losses.tolist()))
    trainer.train()
    # TRL's own loss of the step is the mean of ours.
    expected = trainer.state.log_history[0]["lower_loss"]
    assert np.mean([*seen.values()]) == pytest.approx(expected) and len(seen) == COUNT
    if isinstance(peft, LoraConfig):
        assert [*seen.values()] == pytest.approx([np.log(2)] * COUNT, abs=1e-6)
    else:
        assert np.std([*seen.values()]) > 1e-5


def test_pairs_that_preparation_drops_are_none_of_the_pool(tmp_path, caplog):
    rows = make_preferences(COUNT).map(lambda row, i: {"prompt": "w1 " * 30} if i in (2, 7) else {}, with_indices=True)
    trainer = make_trainer(tmp_path, rows, make_preferences(4, first=20), max_length=16)
    assert trainer.selector.num_examples == COUNT - 2 and "row 2 the first of them" in caplog.text
    trainer.train()
    weights = trainer.example_weights()["weight"][:]
    assert [row for row in range(COUNT) if weights[row] == 0] == [2, 7]
    assert np.mean([weight for weight in weights if weight]) == pytest.approx(1)
