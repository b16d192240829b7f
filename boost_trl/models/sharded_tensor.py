"""Tensors of which every process holds a piece, as FSDP2 keeps them."""

import torch
from torch.distributed.tensor import DTensor


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, which all processes have to ask for together; the tensor itself unless it is in pieces."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_piece(tensor: torch.Tensor) -> torch.Tensor:
    """This process's piece of a tensor, under FSDP2 or ZeRO-3; the tensor itself unless it is in pieces."""
    tensor = getattr(tensor, "ds_tensor", tensor)
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
