"""
Trains tiny settings of both trainers and leaves what they end with in folders: one process of a run under some engine.
`benchmarks/engines.py` starts it so for each, and compares.

    accelerate launch --config_file examples/accelerate_configs/ddp.yaml benchmarks/engine_runs.py outputs/engines rl_mc --use_cpu
"""

import argparse
import json
import os
import random
from pathlib import Path

import torch
import torch._dynamo
from accelerate.state import AcceleratorState, DistributedType, PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from peft import LoraConfig
from torch.distributed.tensor import DTensor
from transformers import BitsAndBytesConfig, TrainerCallback

from boost_trl import (
    BilevelOfflineRLConfig,
    BilevelOfflineRLTrainer,
    BilevelSFTSelfRefineConfig,
    BilevelSFTSelfRefineTrainer,
)
from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer
from boost_trl.models.sharded_tensor import own_piece
from boost_trl.trainer.common.engines import innermost_optimizer, optimized_tensors


WORDS = "yes no maybe is it big red hot tall small old ? .".split()
GLOBAL_BATCH = 8
COMMON = {
    "max_steps": 6,
    "learning_rate": 1e-2,
    # Large enough that Adam does not blow up the rounding of gradients that should be zero.
    "adam_epsilon": 1e-3,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "seed": 1,
}
OFFLINE_RL = {"auxiliary_steps": 1, "primary_steps": 1, "average_last": 0.5}
SFT = {"selector": "bds", "selector_baseline": "token", "gradient_checkpointing": False}
# By trainer and setting; those that end in "lora" train an adapter.
CELLS = {
    "rl_mc": {**OFFLINE_RL, "algorithm": "mc"},
    "rl_mc_lora": {**OFFLINE_RL, "algorithm": "mc", "auxiliary_policy": "adapter"},
    "rl_ilql": {**OFFLINE_RL, "algorithm": "ilql"},
    "rl_ilql_lora": {**OFFLINE_RL, "algorithm": "ilql", "auxiliary_policy": "adapter"},
    "rl_validated": {"method": "validated", "score_steps": 12, "states_dtype": "float32", "average_last": 0.5},
    "sft_bds": SFT,
    "sft_bds_lora": SFT,
    "sft_validated": {
        **SFT,
        "selector": "validated",
        "selection_rounds": 2,
        "selector_baseline": None,
        "selection_guard": False,
    },
    "sft_online": {**SFT, "online_ratio": 0.5, "generation_interval": 2, "max_generation_length": 6, "rho_init": 0.5},
}


def dialogues(count: int, seed: int, spoilt: int = 0) -> Dataset:
    """Rows in the trajectory format, which are instruction data as well; the first `spoilt` answer backwards."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        messages, rewards = [], []
        for _ in range(draw.randint(1, 3)):
            words = ["is", "it", *draw.sample(["big", "red", "hot", "tall", "small", "old"], draw.randint(1, 2)), "?"]
            messages.append({"role": "user", "content": draw.choice(["yes .", "no .", "maybe yes ."])})
            messages.append({"role": "assistant", "content": " ".join(words[::-1] if number < spoilt else words)})
            rewards.append(-draw.random())
        rows.append({"messages": messages, "rewards": rewards, "terminated": draw.random() < 0.7})
    return Dataset.from_list(rows)


def questions(count: int, seed: int, spoilt: int = 0) -> Dataset:
    """Rows of a prompt and its completion."""
    rows = [row["messages"] for row in dialogues(count, seed, spoilt)]
    return Dataset.from_list([{"prompt": turns[:1], "completion": turns[1:2]} for turns in rows])


class Watch(TrainerCallback):
    """Share of parameters in pieces; graphs that `torch.compile` has made by the end of each epoch; whether anything of a
    frozen role moved in an update: its parameters (under ZeRO this process's float32 partitions), its moments."""

    def __init__(self):
        self.trainer, self.sharded, self.graphs = None, 0.0, []
        self.frozen_checked, self.frozen_moved = 0, False

    def _frozen(self):
        optimizer = self.trainer.optimizer
        for group, tensor in optimized_tensors(optimizer):
            if group.get("frozen"):
                state = innermost_optimizer(optimizer).state.get(tensor, {})
                values = [tensor, *(value for value in state.values() if isinstance(value, torch.Tensor))]
                yield from (own_piece(value).detach() for value in values)

    def on_step_begin(self, args, state, control, **kwargs):
        self.before = [tensor.clone() for tensor in self._frozen()]

    def on_optimizer_step(self, args, state, control, **kwargs):
        now = list(self._frozen())
        self.frozen_checked += len(now)
        self.frozen_moved |= not all(torch.equal(*pair) for pair in zip(self.before, now, strict=True))
        parameters = list(self.trainer.model.parameters())
        sharded = sum(isinstance(p, DTensor) or hasattr(p, "ds_id") for p in parameters)
        self.sharded = sharded / len(parameters)

    def on_epoch_end(self, args, state, control, **kwargs):
        self.graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def make_trainer(cell: str, folder: Path, *, accumulation: int = 1, nf4: bool = False, **options):
    processes = int(os.environ.get("WORLD_SIZE", 1))
    settings = {
        **COMMON,
        **CELLS[cell],
        "per_device_train_batch_size": GLOBAL_BATCH // processes // accumulation,
        "gradient_accumulation_steps": accumulation,
        "ddp_backend": "gloo" if options.get("use_cpu") and processes > 1 else None,
        **options,
    }
    tokenizer = word_tokenizer(WORDS)
    model = tiny_gpt2(tokenizer, hidden_size=16, num_layers=2, num_heads=2, initializer_range=0.1)
    if nf4:  # what is quantised has to be loaded
        model.save_pretrained(folder / "base")
        model = str(folder / "base")
    adapter = LoraConfig(r=2, target_modules=["c_attn", "c_fc"], task_type="CAUSAL_LM")
    rows = dialogues if not cell.startswith("sft_online") else questions
    offline_rl = cell.startswith("rl")
    args = (BilevelOfflineRLConfig if offline_rl else BilevelSFTSelfRefineConfig)(str(folder), **settings)
    return (BilevelOfflineRLTrainer if offline_rl else BilevelSFTSelfRefineTrainer)(
        model,
        args,
        train_dataset=rows(16, seed=1, spoilt=8),
        processing_class=tokenizer,
        peft_config=adapter if cell.endswith("lora") else None,
        validation_dataset=rows(8, seed=2),
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4") if nf4 else None,
    )


def run(cell: str, folder: Path, resume_at: int | None = None, **options) -> None:
    """Train one cell, from a checkpoint of another run after `resume_at` updates if given; `folder` then has all that is saved
    and `engine_run.json`."""
    checkpoint = None
    if resume_at is not None:
        before = folder.with_name(f"{folder.name}-before")
        make_trainer(cell, before, save_strategy="steps", save_steps=resume_at, **options).train()
        checkpoint = str(before / f"checkpoint-{resume_at}")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    watch = Watch()
    trainer = make_trainer(cell, folder, **options)
    watch.trainer = trainer
    trainer.add_callback(watch)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    state = AcceleratorState()
    values = {
        "distributed_type": str(state.distributed_type.value),
        "num_processes": state.num_processes,
        "mixed_precision": state.mixed_precision,
        "zero_stage": trainer.accelerator.deepspeed_plugin.zero_stage if trainer.is_deepspeed_enabled else None,
        "sharded_share": watch.sharded,
        "frozen_checked": watch.frozen_checked,
        "frozen_moved": watch.frozen_moved,
        "graphs": watch.graphs,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "weights": list(trainer.example_weights()["weight"]),
    }
    if trainer.is_world_process_zero():
        (folder / "engine_run.json").write_text(json.dumps(values, indent=1))


def start_engine(use_cpu: bool) -> None:
    """What CPUs need: a process group for DeepSpeed, and FSDP where Accelerate would ignore its configuration."""
    if not use_cpu:
        return
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"):
        import deepspeed

        deepspeed.init_distributed("gloo")
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        # Accelerate takes the configuration on accelerators only: let it think that two gloo processes are such.
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        torch.distributed.init_process_group("gloo")
        PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cells", nargs="+", choices=CELLS)
    parser.add_argument("--accumulation", type=int, nargs="+", default=[1], help="Steps of gradient accumulation")
    parser.add_argument("--options", type=json.loads, default={}, help="Fields of the configuration, as JSON")
    parser.add_argument("--resume_at", type=int, help="Go on from a checkpoint after so many updates")
    parser.add_argument("--nf4", action="store_true", help="Quantise the model that is under the adapter")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--use_cpu", action="store_true")
    options = parser.parse_args()
    start_engine(options.use_cpu)
    for steps in options.accumulation:
        for cell in options.cells:
            run(
                cell,
                options.folder / f"{cell}-{steps}",
                accumulation=steps,
                bf16=options.bf16,
                use_cpu=options.use_cpu,
                nf4=options.nf4,
                resume_at=options.resume_at,
                **options.options,
            )
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
