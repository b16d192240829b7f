"""Run by `test_sft_distributed.py` on several processes: trains a few settings and writes what each process ends with."""

import dataclasses
import gc
import json
import os
from pathlib import Path

import torch
from sft_tiny import make_args, make_model, make_rows, make_tokenizer
from torch.utils.data import RandomSampler

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


SETTINGS = {
    "bds": {"selector_baseline": "token", "gradient_accumulation_steps": 2, "max_steps": 4},
    "bmo_exact": {"selector": "bmo_exact", "bmo_refresh_steps": 2, "max_steps": 3, "gradient_checkpointing": True},
    "updated": {"selector_loss_at": "updated", "max_steps": 3},
    "tail": {"rows": 13, "max_steps": -1, "num_train_epochs": 1},
    "repeated": {"rows": 9, "draws": 16, "max_steps": -1, "num_train_epochs": 1},
    "packed": {"packing": True, "max_length": 16, "max_steps": 2},
    "validated": {"selector": "validated", "selection_rounds": 2, "max_steps": 6, "adam_epsilon": 1e-3},
}


ZERO = {
    f"zero{stage}": {
        "deepspeed": {
            "zero_optimization": {"stage": stage},
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "gradient_clipping": "auto",
        },
        "gradient_accumulation_steps": 2,
        "max_steps": 4,
    }
    for stage in (2, 3)
}


class WithReplacement(BilevelSFTSelfRefineTrainer):
    """Draws more rows a pass than there are."""

    num_draws = None

    def _get_train_sampler(self, train_dataset=None):
        if self.num_draws is None:
            return super()._get_train_sampler(train_dataset)
        return RandomSampler(self.train_dataset, replacement=True, num_samples=self.num_draws)


def train(folder, name, num_processes):
    settings = dict({**SETTINGS, **ZERO}[name])
    if num_processes == 1:
        settings.pop("deepspeed", None)
    rows = settings.pop("rows", 24)
    draws = settings.pop("draws", None)
    trainer = WithReplacement(
        make_model(attention_dropout=0.0),
        make_args(
            folder,
            per_device_train_batch_size=6 // num_processes,
            per_device_validation_batch_size=4 // num_processes,
            ddp_backend="gloo" if num_processes > 1 else None,
            seed=1,
            **settings,
        ),
        train_dataset=make_rows(rows),
        processing_class=make_tokenizer(),
        validation_dataset=make_rows(7),
        eval_dataset=make_rows(35).select(range(24, 35)),  # none like a row of the pool, so that nothing ties
    )
    trainer.num_draws, updates = draws, []
    update = trainer.selector.update
    trainer.selector.update = lambda ids, losses, gamma: (updates.append(ids.tolist()), update(ids, losses, gamma))
    trainer.train()
    return {
        "confidence": dataclasses.asdict(trainer.weight_confidence),
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
