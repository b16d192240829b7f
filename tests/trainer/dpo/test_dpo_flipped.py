"""Pairs whose preference is flipped lose weight."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from dpo_tiny import make_trainer
from sft_tiny import WORDS, make_model

from boost_trl.selection.auc import weights_auc


def pairs(count, seed, flipped=0.0):
    """Answers from the first half of the words are preferred, but where the pair is flipped."""
    generator = np.random.default_rng(seed)
    is_good, rows = generator.random(count) >= flipped, []
    for good in is_good:
        question, right, wrong = (" ".join(generator.choice(words, 3)) for words in (WORDS, WORDS[:20], WORDS[20:]))
        chosen, rejected = (right, wrong) if good else (wrong, right)
        rows.append({"prompt": f"{question} ", "chosen": chosen, "rejected": rejected, "is_good": bool(good)})
    return Dataset.from_list(rows)


@pytest.mark.parametrize("selector", ["bds", "bmo", "rank", "bmo_exact", "validated"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_flipped_pairs_lose_weight(selector, seed, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path))
    pool = pairs(60, seed, flipped=0.4)
    validated = {"target_effective_fraction": 0.4, "selection_rounds": 1}
    trainer = make_trainer(
        tmp_path,
        pool,
        pairs(16, seed + 100),
        model=make_model(seed, attention_dropout=0.0),
        selector=selector,
        label_column="is_good",
        per_device_train_batch_size=12,
        per_device_validation_batch_size=8,
        learning_rate=1e-2,
        beta=0.5,
        max_steps=15,
        bmo_refresh_steps=5,
        seed=seed,
        **(validated if selector == "validated" else {}),
    )
    trainer.train()
    weights, is_good = torch.tensor(trainer.example_weights()["weight"][:]), np.array(pool["is_good"][:])
    assert weights.mean() == pytest.approx(1, rel=1e-4)
    assert weights_auc(weights.numpy(), is_good) > 0.9
    assert weights[is_good].mean() > 1 > weights[~is_good].mean()
    logged = [entry["selector/auc"] for entry in trainer.state.log_history if "selector/auc" in entry]
    assert logged[-1] > 0.9
