import copy
from pathlib import Path

import pytest
import torch
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer


@pytest.fixture(scope="module")
def tokenizer():
    """One token per byte and Qwen3's template, for which TRL knows how tool calls are read."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    return tokenizer


class ScriptedQwen3(Qwen3ForCausalLM):
    """Random weights; `script(contexts)`, if set, writes the turns, so that a test knows what is played."""

    script = None

    def generate(self, input_ids, attention_mask, generation_config, **kwargs):
        if self.script is None:
            return super().generate(
                input_ids=input_ids, attention_mask=attention_mask, generation_config=generation_config, **kwargs
            )
        contexts = [self.tokenizer.decode(row[mask.bool()]) for row, mask in zip(input_ids, attention_mask)]
        turns = [self.tokenizer(turn + "<|im_end|>")["input_ids"] for turn in self.script(contexts)]
        width = max(map(len, turns))
        turns = [turn + [self.tokenizer.pad_token_id] * (width - len(turn)) for turn in turns]
        return torch.cat([input_ids, torch.tensor(turns)], dim=1)


def tiny_qwen3(tokenizer, script=None):
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = ScriptedQwen3(config)
    model.tokenizer, model.script = tokenizer, script
    return model


@pytest.fixture
def grpo(tokenizer, tmp_path, monkeypatch):
    """A function that makes a GRPOTrainer for one step of two rows, two generations each."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")

    def make(rows, script=None, reward_funcs=None, rows_per_step=1, max_completion_length=4096, **kwargs):
        args = GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=2 * rows_per_step,
            num_generations=2,
            max_steps=1,
            learning_rate=1e-2,
            max_completion_length=max_completion_length,
            logging_steps=1,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        )
        return GRPOTrainer(
            tiny_qwen3(tokenizer, script),
            reward_funcs,
            args,
            rows,
            processing_class=copy.deepcopy(tokenizer),
            **kwargs,
        )

    return make
