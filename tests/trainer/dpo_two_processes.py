"""Run by `test_dpo_distributed.py` on several processes: trains a few settings and writes what each process ends with."""

import gc
import json
import os
from pathlib import Path

import torch
from dpo_tiny import make_preferences, make_trainer
from sft_tiny import make_model, make_pairs
from sft_two_processes import ZERO


SETTINGS = {
    "bds": {"gradient_accumulation_steps": 2, "max_steps": 4},
    "tail": {"rows": 13, "max_steps": -1, "num_train_epochs": 1},
    "answers": {"validation_loss": "sft", "max_steps": 3},
    "validated": {"selector": "validated", "selection_rounds": 2, "max_steps": 6, "adam_epsilon": 1e-3},
}


def train(folder, name, num_processes):
    settings = dict({**SETTINGS, **ZERO}[name])
    if num_processes == 1:
        settings.pop("deepspeed", None)
    rows = settings.pop("rows", 24)
    is_answers = settings.get("validation_loss") == "sft"
    trainer = make_trainer(
        folder,
        make_preferences(rows),
        make_pairs(7) if is_answers else make_preferences(7, first=30),
        model=make_model(attention_dropout=0.0),
        per_device_train_batch_size=6 // num_processes,
        per_device_validation_batch_size=4 // num_processes,
        ddp_backend="gloo" if num_processes > 1 else None,
        seed=1,
        **settings,
    )
    updates, update = [], trainer.selector.update
    trainer.selector.update = lambda ids, losses, gamma: (updates.append(ids.tolist()), update(ids, losses, gamma))
    trainer.train()
    return {
        "logits": trainer.selector.logits().tolist(),
        "updates": updates,
        "parameters": [float(p.detach().double().norm()) for p in trainer.model.parameters()],
        "logs": [
            {k: entry[k] for k in ("loss", "upper_loss", "lower_loss", "grad_norm")}
            for entry in trainer.state.log_history
            if "upper_loss" in entry and "grad_norm" in entry
        ],
    }


def main(folder, *names):
    os.environ["BOOST_TRL_CACHE"] = str(Path(folder, "cache"))
    gc.freeze()  # as in `conftest.py`
    results = {name: train(folder, name, 2) for name in names}
    rank = torch.distributed.get_rank()
    Path(folder, f"rank{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()
