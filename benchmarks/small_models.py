"""What the measures train: language models from scratch, random rows, and trainers whose steps are timed."""

import tempfile
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from side_by_side import Seconds
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainerCallback

from boost_trl.environments.embedded_lm import word_tokenizer


class Clock(TrainerCallback):
    """Seconds per step, of the steps after the first few, and in all.

    Args:
        warm_up (`int`, *optional*, defaults to `2`): steps that do not count.
    """

    def __init__(self, warm_up: int = 2):
        self.warm_up = warm_up

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.warm_up:
            self.start = Seconds.now()
        elif state.global_step == state.max_steps:
            self.per_step = (Seconds.now() - self.start) / (state.max_steps - self.warm_up)


def llama(vocab_size: int, hidden_size: int, layers: int) -> LlamaForCausalLM:
    """The same parameters each time."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=4,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Of the words `w3`, `w4`, ..., which are tokens of these numbers."""
    return word_tokenizer([f"w{number}" for number in range(3, vocab_size)])


def random_rows(count: int, length: int, vocab_size: int, seed: int = 0) -> Dataset:
    """Tokens, all of which are learned."""
    tokens = np.random.default_rng(seed).integers(3, vocab_size, (count, length))
    return Dataset.from_dict({"input_ids": tokens.tolist()})


def random_texts(rng: np.random.Generator, count: int, words: int, vocab_size: int) -> list[str]:
    return [" ".join(f"w{word}" for word in row) for row in rng.integers(3, vocab_size, (count, words))]


def random_dialogues(count: int, turns: int, words: int, vocab_size: int, seed: int = 0) -> Dataset:
    """Trajectories, half of whose tokens are actions."""
    rng = np.random.default_rng(seed)
    texts = iter(random_texts(rng, 2 * count * turns, words, vocab_size))
    roles = ("user", "assistant")
    messages = [[{"role": role, "content": next(texts)} for _ in range(turns) for role in roles] for _ in range(count)]
    return Dataset.from_dict({"messages": messages, "rewards": rng.normal(size=(count, turns)).tolist()})


def trainer_of(trainer_class: type, config_class: type, model, callbacks=(), *, options: dict[str, Any], **data):
    """A trainer that logs, saves and shows nothing, unless `options` say so."""
    quiet = {
        "output_dir": tempfile.mkdtemp(),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    trainer = trainer_class(model, config_class(**{**quiet, **options}), callbacks=[*callbacks], **data)
    trainer.remove_callback(PrinterCallback)
    return trainer
