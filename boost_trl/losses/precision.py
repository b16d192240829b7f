"""Losses are computed in float32 whatever the backbone's dtype; float64 stays float64, so that tests can be exact."""

import torch


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in float64 if it is float64, else in float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
