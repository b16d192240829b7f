"""Run by `test_sft_distributed.py` on two processes: online self-refining, and what each process saw."""

import gc
import json
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from sft_tiny import make_args, make_model, make_pairs, make_tokenizer
from sft_two_processes import ZERO
from sft_two_processes import train as train_offline

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


SETTINGS = {"random": {}, "dynamic": {"online_mask": "dynamic", "selector_baseline": "token"}} | {
    name: {"deepspeed": settings["deepspeed"]} for name, settings in ZERO.items()
}


def train(folder, name, num_processes):
    settings = dict(SETTINGS[name])
    if num_processes == 1:
        settings.pop("deepspeed", None)
    folder = Path(folder) / name
    trainer = BilevelSFTSelfRefineTrainer(
        make_model(attention_dropout=0.0),
        make_args(
            folder,
            per_device_train_batch_size=4 // num_processes,
            per_device_validation_batch_size=4 // num_processes,
            gradient_accumulation_steps=2,
            max_steps=5,
            rho_init=0.5,
            rho_increment=0.1,
            online_ratio=0.4,
            num_generations=2,
            generation_interval=2,
            generation_batch_size=4,
            max_generation_length=6,
            ddp_backend="gloo" if num_processes > 1 else None,
            **settings,
        ),
        train_dataset=make_pairs(24),
        processing_class=make_tokenizer(),
        validation_dataset=make_pairs(5),
    )
    steps = []
    weigh = trainer._refinement._weigh

    def watch(batches):
        weigh(batches)
        answers = trainer._refinement.answers
        steps.append(
            {
                "mask": trainer._refinement.mask.tolist(),
                "rows": answers.rows.tolist(),
                "answers": answers.tokens,
                "status": answers.status.tolist(),
                "old_log_probs": [values.tolist() for values in answers.log_probs],
                "weights": {str(number): w.tolist() for number, w in trainer._refinement._weights.items()},
            }
        )

    trainer._refinement._weigh = watch
    trainer.train()
    files = (
        [str(path) for path in sorted((folder / "generations").iterdir())] if trainer.is_world_process_zero() else []
    )
    return {
        "steps": steps,
        "files": [Dataset.from_parquet(path).to_dict() for path in files],
        "logits": trainer.selector.logits().tolist(),
        "weights": trainer.selector.weights().tolist(),
        "parameters": [float(p.detach().double().norm()) for p in trainer.model.parameters()],
        "logs": [
            {k: v for k, v in entry.items() if k.endswith("loss") or k.startswith(("online/", "grad", "selector/"))}
            for entry in trainer.state.log_history
            if "loss" in entry
        ],
    }


def main(folder, *names):
    gc.freeze()  # as in `conftest.py`
    results = {name: (train if name in SETTINGS else train_offline)(folder, name, 2) for name in names}
    Path(folder, f"rank{torch.distributed.get_rank()}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


def largest_difference(first, second):
    """The largest relative difference of numbers in the same places; anything else must be equal."""
    assert isinstance(first, (int, float)) == isinstance(second, (int, float)), (first, second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        return max((largest_difference(first[key], second[key]) for key in first), default=0.0)
    if isinstance(first, list):
        assert len(first) == len(second)
        return max((largest_difference(*pair) for pair in zip(first, second)), default=0.0)
    if isinstance(first, float):
        return abs(first - second) / max(abs(first), abs(second), 1e-3) if np.isfinite(first) else 0.0
    assert first == second, (first, second)
    return 0.0
