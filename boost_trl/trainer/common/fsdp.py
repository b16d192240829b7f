"""Support of FSDP2, under which a module's parameters are whole only within its own forward and backward.

Unlike ZeRO-3 it takes a model in pieces when training begins, and cannot be made to give it back: what needs a whole model
after that uses a copy.
"""

import copy

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def check_fsdp(plugin) -> None:
    """Refuse what cannot work.

    Args:
        plugin (`FullyShardedDataParallelPlugin`, *optional*): of the Accelerator; nothing is refused without one.

    Raises:
        ValueError: for FSDP1, and for a model that only the main process has loaded.
    """
    if plugin is None:
        return
    hint = "see examples/accelerate_configs/fsdp2.yaml"
    if plugin.fsdp_version != 2:
        raise ValueError(
            f"FSDP1 keeps parameters in a way that value heads were not made for: set `fsdp_version: 2`, {hint}"
        )
    if plugin.cpu_ram_efficient_loading:
        raise ValueError(
            "what is computed before training needs the whole model in every process: set "
            f"`fsdp_cpu_ram_efficient_loading: false`, {hint}"
        )


def is_sharded(model: nn.Module) -> bool:
    """Whether FSDP2 keeps the parameters in pieces."""
    return any(isinstance(module, FSDPModule) for module in model.modules())


def without_parameters(model: nn.Module) -> nn.Module:
    """A copy of a model that FSDP2 has not taken in pieces yet, with parameters that take no memory, for [`whole_copy`]."""
    empty = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, empty)


def whole_copy(model: nn.Module, form: nn.Module) -> nn.Module:
    """A whole copy of a model on every process, which all have to ask for together.

    Args:
        model (`nn.Module`): in pieces.
        form (`nn.Module`): what [`without_parameters`] has made of it before.
    """
    whole = copy.deepcopy(form)
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    whole.load_state_dict(state, assign=True)
    return whole


def reshard(model: nn.Module) -> None:
    """Take in pieces again what forwards without a backward have left whole: those copies would soon be out of date, and what
    is written into them is lost."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@torch.no_grad()
def set_from_main_process(parameter: DTensor, value: torch.Tensor | None) -> None:
    """Set a parameter in pieces to a value that the main process has whole; all have to call it together."""
    if value is None:
        value = torch.empty(parameter.shape)
    value = value.to(parameter.device, parameter.dtype)
    parameter.copy_(distribute_tensor(value, parameter.device_mesh, parameter.placements))
