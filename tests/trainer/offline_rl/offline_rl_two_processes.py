"""Run by `test_offline_rl_distributed.py` on several processes: trains a few settings and writes what each process ends
with."""

import gc
import importlib
import json
import random
import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from boost_trl import BilevelOfflineRLConfig, BilevelOfflineRLTrainer
from boost_trl.environments.base import Task
from boost_trl.environments.embedded_lm import tiny_gpt2, word_tokenizer
from boost_trl.models.sharded_tensor import own_piece
from boost_trl.trainer.common.engines import innermost_optimizer, optimized_tensors


sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
start_engine = importlib.import_module("engine_runs").start_engine

WORDS = "user: assistant: yes no maybe is it big red hot tall small old ? .".split()
PROBE = torch.arange(12).reshape(2, 6)
# Batches of 8 rows in 2 micro-batches (of 2 per process, when there are two) unless a setting says otherwise.
SETTINGS = {
    "mc": {"algorithm": "mc", "gradient_checkpointing": True, "architecture": "llama"},
    "ilql": {"algorithm": "ilql", "gradient_checkpointing": True, "validation_rows": 2},
    "frozen": {"algorithm": "ilql", "train_backbone": False, "states_dtype": "float32"},
    "adapters": {"algorithm": "mc", "gradient_checkpointing": True, "auxiliary_policy": "adapter"},
    "validated": {
        "method": "validated",
        "score_steps": 12,
        "states_dtype": "float32",
        "validation_share": 0.25,
        "finish_share": 0.25,
        "max_steps": 4,
    },
    "turns": {"algorithm": "ilql", "weight_level": "turn"},
    "token_mean": {"algorithm": "mc", "loss_normalization": "token_mean", "max_grad_norm": 0.5},
}
SETTINGS["validated_turns"] = SETTINGS["validated"] | {"weight_level": "turn"}

# A model given by name, which ZeRO-3 partitions while it is loaded.
BY_NAME = {
    "named": {"algorithm": "ilql", "policy_prior": "lm", "eval_strategy": "steps", "eval_steps": 3},
    "named_adapter": {"algorithm": "mc", "auxiliary_policy": "heads"},
}

ZERO = {
    "zero_allow_untested_optimizer": True,
    **dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu"), "auto"),
    **dict.fromkeys(("gradient_accumulation_steps", "gradient_clipping"), "auto"),
}
# Nothing here is large enough to be partitioned unless the threshold says so.
STAGES = {2: {"stage": 2}, 3: {"stage": 3, "stage3_param_persistence_threshold": 0, "sub_group_size": 2000}}
ENGINES = {"ddp": {}, "fsdp2": {}}
for stage, settings in STAGES.items():
    deepspeed = {**ZERO, "zero_optimization": settings}
    ENGINES[f"zero{stage}"] = {"deepspeed": deepspeed}
    ENGINES[f"zero{stage}_offload"] = {
        "deepspeed": {**deepspeed, "zero_optimization": settings | {"offload_optimizer": {"device": "cpu"}}}
    }
    ENGINES[f"zero{stage}_bf16"] = {"deepspeed": {**deepspeed, "bf16": {"enabled": True}}, "bf16": True}


class GuessAWord:
    """Won by saying "red"; the answer to anything else is "no"."""

    name = "guess_a_word"
    system_prompt = None
    max_steps = 2

    def tasks(self, categories=None):
        return [Task(str(number), "word") for number in range(4)]

    def reset(self, *, seed=None, task=None):
        self.count = 0
        return "yes .", {}

    def step(self, action):
        self.count += 1
        success = "red" in action
        over = success or self.count == self.max_steps
        return "no .", -1.0, over, False, {"success": success, "score": float(success)}

    def admissible_actions(self):
        return WORDS

    def close(self):
        pass


def make_rows(count, seed):
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        messages, rewards = [], []
        for _ in range(draw.randint(1, 3)):
            messages.append({"role": "user", "content": draw.choice(["yes .", "no .", "maybe yes ."])})
            words = draw.sample(["big", "red", "hot", "tall", "small", "old"], draw.randint(1, 2))
            messages.append({"role": "assistant", "content": " ".join(["is it", *words, "?"])})
            rewards.append(-draw.random())
        rows.append({"messages": messages, "rewards": rewards, "terminated": draw.random() < 0.7})
    return Dataset.from_list(rows)


def make_model(tokenizer, architecture):
    if architecture == "gpt2":
        return tiny_gpt2(tokenizer, hidden_size=16, num_layers=2, num_heads=2)
    torch.manual_seed(0)
    # Its output head is its own, which no forward of the trainer uses.
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=False, **sizes))


def save_base(folder):
    tokenizer = word_tokenizer(WORDS)
    make_model(tokenizer, "gpt2").save_pretrained(Path(folder, "base"))


def make_trainer(folder, name, num_processes, **options):
    settings = {**SETTINGS, **BY_NAME}[name] | options
    architecture = settings.pop("architecture", "gpt2")
    if "validation_rows" in settings:  # per micro-batch, over all processes
        settings["per_device_validation_batch_size"] = settings.pop("validation_rows") // num_processes
    tokenizer = word_tokenizer(WORDS)
    model, arguments = make_model(tokenizer, architecture), {}
    if name in BY_NAME:
        model = str(Path(folder, "base"))
        settings["reference_model_name_or_path"] = model if settings.get("policy_prior") == "lm" else None
    if "auxiliary_policy" in settings:
        arguments["peft_config"] = LoraConfig(r=2, target_modules=["c_attn", "c_fc"], task_type="CAUSAL_LM")
    defaults = {
        "auxiliary_steps": 2,
        "primary_steps": 2,
        "max_steps": 8,
        "per_device_train_batch_size": 4 // num_processes,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        # Large enough that Adam does not blow up the rounding of gradients that should be zero.
        "adam_epsilon": 1e-3,
        "reweighting_learning_rate": 1e-2,
        "average_last": 0.5,
        "logging_steps": 1,
        "save_strategy": "no",
        "eval_games": 5,
        "max_new_tokens": 4,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "ddp_backend": "gloo" if num_processes > 1 else None,
        "seed": 1,
        "cache_dir": str(Path(folder, f"cache-{num_processes}")),
    }
    output_dir = settings.pop("output_dir", str(Path(folder, f"{name}-{num_processes}")))
    args = BilevelOfflineRLConfig(output_dir, **{**defaults, **settings})
    if args.deepspeed:
        import deepspeed

        # On GPUs, Accelerate does it when the configuration is made.
        deepspeed.init_distributed("gloo")
    return BilevelOfflineRLTrainer(
        model,
        args,
        train_dataset=make_rows(24, seed=1),
        eval_dataset=make_rows(5, seed=3),
        processing_class=tokenizer,
        validation_dataset=make_rows(7, seed=2),
        environment=GuessAWord(),
        **arguments,
    )


class WhatMoves(TrainerCallback):
    """Which roles' parameters (under ZeRO, this process's float32 partitions) and optimizer states each update changes."""

    def __init__(self, trainer):
        self.trainer = trainer
        self.moved, self.equal = [], []

    def states(self):
        optimizer = self.trainer.optimizer
        by_role = {}
        for group, tensor in optimized_tensors(optimizer):
            state = innermost_optimizer(optimizer).state.get(tensor, {})
            values = [tensor, *(torch.as_tensor(state[key]) for key in sorted(state))]
            by_role.setdefault(group["role"], []).extend(own_piece(value).detach().clone() for value in values)
        return by_role

    def on_step_begin(self, args, state, control, **kwargs):
        self.before = self.states()
        self.equal.append(same(self.before["primary"], self.before.get("auxiliary", [])))

    def on_step_end(self, args, state, control, **kwargs):
        now = self.states()
        self.moved.append(sorted(role for role in now if not same(now[role], self.before[role])))


def same(some, others):
    return len(some) == len(others) and all(torch.equal(*pair) for pair in zip(some, others))


def train(folder, name, num_processes, resume=None, **options):
    """(JSON values, tensors) that the process ends with."""
    trainer = make_trainer(folder, name, num_processes, **options)
    callback = WhatMoves(trainer)
    # Before the trainer's own, which copies one policy to the other.
    trainer.callback_handler.callbacks.insert(0, callback)
    before = None
    if name in BY_NAME:
        before = trainer.evaluate()
        trainer.save_model(str(Path(folder, f"{name}-untrained")))
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model()
    with trainer._whole() as model, torch.no_grad():
        tensors = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        tensors["policy"] = trainer.policy()(PROBE).logits
    if trainer.reweighting_head is not None:
        tensors |= {f"phi.{key}": value for key, value in trainer.reweighting_head.state_dict().items()}
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    values = {
        "logs": [{k: v for k, v in entry.items() if isinstance(v, int | float)} for entry in history],
        "weights": list(trainer.example_weights()["weight"]),
        "evaluation": trainer.evaluate(),
        "evaluation_before": before,
        "moved": callback.moved,
        "equal": callback.equal,
    }
    return values, {key: value.detach().clone().contiguous() for key, value in tensors.items()}


def diverge(folder, **options):
    """The error that stops training where one row, which one process has, has no finite loss."""
    trainer = make_trainer(folder, "mc", 2, **options)
    start = trainer.data.store.action_counts[:7].sum()
    trainer.data.store._returns[start : start + trainer.data.store.action_counts[7]] = float("inf")
    try:
        trainer.train()
    except ValueError as error:
        return str(error)


def train_again(folder, **options):
    """What a second `train()` says or, without an error, the names of what it logs."""
    trainer = make_trainer(folder, "mc", 2, max_steps=4, **options)
    trainer.train()
    try:
        trainer.train()
    except ValueError as error:
        return str(error)
    return " ".join(trainer.state.log_history[-1])


def main(folder, engine, resumed, *names):
    gc.freeze()  # as in `conftest.py`
    start_engine(use_cpu=True)
    options = ENGINES[engine]
    results = {name: train(folder, name, 2, **options) for name in names}
    results["saving"] = train(folder, resumed, 2, save_strategy="steps", save_steps=3, **options)
    checkpoint = str(Path(folder, f"{resumed}-2", "checkpoint-3"))
    results["resumed"] = train(folder, resumed, 2, resume=checkpoint, **options)
    if "validated" in names:
        # A resumed run within the second epoch, whose number Trainer does not tell a sampler.
        results["saving_validated"] = train(
            folder, "validated", 2, max_steps=5, save_strategy="steps", save_steps=4, **options
        )
        checkpoint = str(Path(folder, "validated-2", "checkpoint-4"))
        results["resumed_validated"] = train(folder, "validated", 2, resume=checkpoint, max_steps=5, **options)
    rank = torch.distributed.get_rank()
    Path(folder, f"again-rank{rank}.txt").write_text(train_again(folder, **options))
    Path(folder, f"diverged-rank{rank}.txt").write_text(diverge(folder, **options))
    for name, (_, tensors) in results.items():
        save_file(tensors, Path(folder, f"{name}-rank{rank}.safetensors"))
    values = {name: values for name, (values, _) in results.items()}
    Path(folder, f"rank{rank}.json").write_text(json.dumps(values))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
