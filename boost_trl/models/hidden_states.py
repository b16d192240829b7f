"""The final hidden states of a causal LM, with or without its adapters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast


def base_causal_lm(model: nn.Module) -> PreTrainedModel:
    """The causal LM inside a PEFT wrapper (its layers still hold the adapters), or `model` itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def final_hidden_states(model: nn.Module, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Hidden states after the final norm, (B, S, d), without computing vocabulary logits."""
    decoder = base_causal_lm(model).base_model
    return decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state


def output_with_hidden_states(lm: PreTrainedModel, **inputs) -> tuple[CausalLMOutputWithPast, torch.Tensor]:
    """The output of the model's own forward, whatever its architecture does to logits, and the hidden states after the final
    norm, (B, S, d), that it was made from."""
    decoder_outputs = []
    handle = lm.base_model.register_forward_hook(lambda module, args, output: decoder_outputs.append(output))
    try:
        output = lm(**inputs)
    finally:
        handle.remove()
    return output, decoder_outputs[0].last_hidden_state


@contextmanager
def adapters_disabled(model: nn.Module) -> Iterator[None]:
    """A context in which `model` is the unmodified pretrained LM: adapters off with PEFT, nothing to do otherwise."""
    if not hasattr(model, "disable_adapter"):
        yield
        return
    with trainability_kept(model), model.disable_adapter():
        yield


@contextmanager
def trainability_kept(model: nn.Module) -> Iterator[None]:
    """A context that leaves every parameter's `requires_grad` as it was: whenever PEFT switches adapters, it makes the
    active one trainable and all others not."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, flag in flags:
            if parameter.requires_grad is not flag:
                parameter.requires_grad_(flag)
