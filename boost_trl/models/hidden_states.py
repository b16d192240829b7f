"""The final hidden states of a causal LM, with or without its adapters."""

from contextlib import nullcontext

import torch
from torch import nn
from transformers import PreTrainedModel


def base_causal_lm(model: nn.Module) -> PreTrainedModel:
    """The causal LM inside a PEFT wrapper (its layers still hold the adapters), or `model` itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def final_hidden_states(model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Hidden states after the final norm, (B, S, d), without computing vocabulary logits."""
    decoder = base_causal_lm(model).base_model
    return decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state


def adapters_disabled(model: nn.Module):
    """A context in which `model` is the unmodified pretrained LM: adapters off with PEFT, nothing to do otherwise."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
