import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from boost_trl.models.value_heads import ValueHeads, ValueHeadsConfig


VOCAB, DIM = 61, 16


class TinyModels:
    """Random models whose next tokens depend on the whole context, and random heads that fit them."""

    @staticmethod
    def language_model(architecture="gpt2", **config):
        torch.manual_seed(0)
        shared = {
            "vocab_size": VOCAB,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "initializer_range": 0.5,
        }
        if architecture == "gpt2":
            model = GPT2LMHeadModel(GPT2Config(n_embd=DIM, n_layer=2, n_head=2, n_positions=64, **shared | config))
        else:
            sizes = {"hidden_size": DIM, "intermediate_size": 32, "num_hidden_layers": 2}
            sizes |= {"num_attention_heads": 2, "num_key_value_heads": 1}
            model = LlamaForCausalLM(LlamaConfig(**shared | sizes | config))
        return model.eval()

    @staticmethod
    def lora(model, seed=1):
        torch.manual_seed(seed)
        # Without the usual zero start: the adapter has to matter.
        config = LoraConfig(r=2, init_lora_weights=False, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, config).eval()

    @staticmethod
    def value_heads(algorithm="mc", hidden_size=DIM, vocab_size=VOCAB, **config):
        heads = ValueHeads(ValueHeadsConfig(algorithm, hidden_size, vocab_size, **config))
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in heads.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
        return heads


@pytest.fixture
def tiny():
    return TinyModels
