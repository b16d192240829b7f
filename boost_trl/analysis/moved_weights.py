"""Distance of a saved policy's weights from those of the language model that it started from, for the bound's KL."""

import json
from pathlib import Path

import torch
from safetensors import safe_open

from boost_trl.models.hidden_states import base_causal_lm
from boost_trl.models.policy_files import load_backbone
from boost_trl.models.value_heads import ValueHeads


@torch.no_grad()
def squared_distance(folder: Path) -> dict[str, float]:
    """‖Δ‖² of what training has moved, by part.

    The Q heads' prior is the LM's own output matrix, V × d, with which softmax(Q) is the LM: rows are centred, because a constant over
    tokens does not change the policy. An adapter counts by what it adds to the matrices that it sits on, ‖s·BA‖². The V head
    does not act.

    Args:
        folder (`Path`): of a [`ValuePolicy`].

    Returns:
        `dict`: `value heads` and, with an adapter, `adapter`.

    Raises:
        ValueError: if there is no saved policy, or all of the model was trained, so that the distance needs its origin.
    """
    if not (folder / ValueHeads.weights_name).is_file():
        raise ValueError("the policy's weights were not saved")
    config = json.loads((folder / ValueHeads.config_name).read_text())
    backbone = load_backbone(str(folder))
    base = base_causal_lm(backbone)
    is_adapter = base is not backbone
    if config["train_backbone"] and not is_adapter:
        raise ValueError("the whole model was trained, and what it started from is not in the folder")
    parts = {"value heads": _heads_distance(folder, base.get_output_embeddings().weight)}
    if is_adapter:
        parts["adapter"] = _adapter_distance(backbone)
    return parts


def _heads_distance(folder: Path, output_matrix: torch.Tensor) -> float:
    prior, total = _centred(output_matrix), 0.0
    with safe_open(folder / ValueHeads.weights_name, "pt") as saved:
        names = set(saved.keys())
        if "q_weight" in names:
            heads = iter(saved.get_tensor("q_weight"))
        else:
            out, inward = saved.get_tensor("q_factor_out"), saved.get_tensor("q_factor_in")
            heads = (left.double() @ right.double() for left, right in zip(out, inward))
        for weight in heads:
            total += (_centred(weight) - prior).square().sum().item()
        total += sum(
            (bias.double() - bias.double().mean()).square().sum().item() for bias in saved.get_tensor("q_bias")
        )
    return total


def _centred(matrix: torch.Tensor) -> torch.Tensor:
    matrix = matrix.double()
    return matrix - matrix.mean(dim=0)


def _adapter_distance(backbone) -> float:
    from peft.tuners.lora import LoraLayer

    layers = [module for module in backbone.modules() if isinstance(module, LoraLayer)]
    if not layers or any(name.endswith("modules_to_save.default") for name, _ in backbone.named_modules()):
        raise ValueError("the adapter is no plain LoRA")
    return sum(layer.get_delta_weight("default").double().square().sum().item() for layer in layers)
