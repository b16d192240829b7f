"""A hash of all that the hidden states of an unmodified language model follow from."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import xxhash
from torch import nn

from .hidden_states import base_causal_lm


# Entries of a configuration that no hidden state depends on; they differ between a model and its reloaded copy.
_IRRELEVANT = {
    *("_name_or_path", "transformers_version", "architectures", "dtype", "use_cache", "return_dict"),
    *("output_hidden_states", "output_attentions", "bos_token_id", "eos_token_id", "pad_token_id"),
}
# Tensors are read in pieces of this size: a model on an accelerator is never copied to the host as a whole.
_BYTES_AT_ONCE = 2**26


@torch.no_grad()
def model_fingerprint(
    model: nn.Module,
    *,
    without_trained_modules: bool = False,
    gathered: Callable[[list[torch.Tensor]], AbstractContextManager] = nullcontext,
) -> str:
    """A hash of the model's class, configuration and every entry of every tensor, quantisation scales and buffers that no
    checkpoint holds included. Adapters are left out: with or without one, the unmodified model has the same hash.

    Args:
        model (`nn.Module`): a causal LM or a `PeftModel` around one.
        without_trained_modules (`bool`, *optional*, defaults to `False`): leave out the modules that an adapter holds
            copies of (`modules_to_save`, `trainable_token_indices`), so that what they were before has no part in it.
        gathered (`Callable`, *optional*): makes a context in which tensors, of which each process holds a piece, are whole.

    Returns:
        `str`: 32 hexadecimal digits (xxh3, 128 bits).
    """
    lm = base_causal_lm(model)
    digest = xxhash.xxh3_128()
    config = json.dumps(_relevant(lm.config.to_dict()), sort_keys=True, default=str)
    digest.update(f"{type(lm).__name__}{config}".encode())
    below = _unmodified_part(lm, without_trained_modules)
    # A state dict has the scales of quantised weights, but no buffers that follow from the configuration.
    for name, tensor in sorted((dict(lm.named_buffers()) | lm.state_dict(keep_vars=True)).items()):
        name = _name_without_adapter(name, below)
        if name is not None and isinstance(tensor, torch.Tensor):
            with gathered([tensor]):
                _add(digest, name, tensor)
    return digest.hexdigest()


def trained_fingerprint(model: nn.Module) -> str:
    """A hash of what trains, beside [`model_fingerprint`]: the parameters' names and, of an adapter, which that leaves out,
    every entry."""
    digest = xxhash.xxh3_128()
    has_adapter = hasattr(base_causal_lm(model), "peft_config")
    for name, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            digest.update(name.encode())
            if has_adapter:
                _add(digest, name, parameter)
    return digest.hexdigest()


def _add(digest: xxhash.xxh3_128, name: str, tensor: torch.Tensor) -> None:
    digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
    for piece in tensor.detach().contiguous().reshape(-1).view(torch.uint8).split(_BYTES_AT_ONCE):
        digest.update(piece.cpu().numpy())


def _relevant(values: Any) -> Any:
    if isinstance(values, dict):
        return {str(key): _relevant(value) for key, value in values.items() if key not in _IRRELEVANT}
    return [_relevant(value) for value in values] if isinstance(values, list | tuple) else values


def _unmodified_part(lm: nn.Module, without_trained_modules: bool) -> dict[str, str]:
    """By the name of each module that PEFT put in the place of another: what it calls the other."""
    if not hasattr(lm, "peft_config"):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper

    kinds = {
        BaseTunerLayer: "base_layer",
        AuxiliaryTrainingWrapper: "nothing" if without_trained_modules else "original_module",
    }
    return {
        name: child for name, module in lm.named_modules() for kind, child in kinds.items() if isinstance(module, kind)
    }


def _name_without_adapter(name: str, below: dict[str, str]) -> str | None:
    """The tensor's name in the model without adapters, `None` for an adapter's own tensor."""
    kept, path, child = [], "", None
    for part in name.split("."):
        if child is not None and part != child:
            return None
        if child is None:
            kept.append(part)
        path = f"{path}.{part}" if path else part
        child = below.get(path)
    return ".".join(kept)
