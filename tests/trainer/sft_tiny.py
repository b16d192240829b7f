"""Tiny models, a word-level tokenizer and datasets for the SFT trainer's tests."""

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    TrainerCallback,
)

from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig


WORDS = [f"w{i}" for i in range(40)]
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<a> {% generation %}{{ m['content'] }} <eos>"
    "{% endgeneration %}{% else %}<u> {{ m['content'] }} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<a> {% endif %}"
)


def make_tokenizer():
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", "<u>", "<a>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    # TRL appends the end-of-sequence token without a space.
    tokenizer.add_special_tokens({"additional_special_tokens": ["<u>", "<a>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(seed=0, **overrides):
    torch.manual_seed(seed)
    config = {
        "vocab_size": 48,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "attention_dropout": 0.1,
        **overrides,
    }
    return LlamaForCausalLM(LlamaConfig(**config))


def make_moe_model():
    torch.manual_seed(0)
    config = Qwen2MoeConfig(
        vocab_size=48,
        hidden_size=16,
        intermediate_size=24,
        moe_intermediate_size=8,
        shared_expert_intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        router_aux_loss_coef=0.1,
        pad_token_id=0,
        eos_token_id=1,
    )
    return Qwen2MoeForCausalLM(config)


def sentence(number, length):
    return " ".join(WORDS[(number * 7 + i * (number % 3 + 1)) % len(WORDS)] for i in range(length))


def make_rows(count=13, columns=()):
    """Language-modelling rows of unequal lengths."""
    rows = [{"text": sentence(i, 3 + i * 5 % 11)} for i in range(count)]
    for name, values in dict(columns).items():
        for row, value in zip(rows, values):
            row[name] = value
    return Dataset.from_list(rows)


def make_pairs(count=12):
    return Dataset.from_list(
        [{"prompt": sentence(i, 4) + " ", "completion": sentence(i + 5, 2 + i % 4)} for i in range(count)]
    )


def make_conversations(count=12):
    return Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": sentence(i, 3)},
                    {"role": "assistant", "content": sentence(i + 3, 2 + i % 5)},
                ]
            }
            for i in range(count)
        ]
    )


def make_args(output_dir, cls=BilevelSFTSelfRefineConfig, **overrides):
    """Tiny settings; the selector is the paper's, whose weights move in the first steps."""
    papers = {"selector": "bds", "selector_baseline": None} if issubclass(cls, BilevelSFTSelfRefineConfig) else {}
    values = {
        **papers,
        "output_dir": str(output_dir),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 3,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        **overrides,
    }
    return cls(**values)


class GradientNorms(TrainerCallback):
    """Keeps every parameter's gradient at each optimizer step."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


def logs_without_times(trainer):
    return [
        {k: v for k, v in entry.items() if not k.endswith(("runtime", "per_second"))}
        for entry in trainer.state.log_history
    ]
