"""A running mean of trained parameters over the last part of training."""

import torch
from torch import nn


class ParameterAverage:
    """The mean, in float32, of named parameters over the moments at which `add` was called."""

    def __init__(self):
        self.count = 0
        self.means: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def add(self, parameters: dict[str, nn.Parameter]) -> None:
        self.count += 1
        for name, parameter in parameters.items():
            if self.count == 1:
                self.means[name] = parameter.detach().float().clone()
            else:
                self.means[name].lerp_(parameter.detach().float(), 1 / self.count)

    @torch.no_grad()
    def apply_to(self, parameters: dict[str, nn.Parameter]) -> None:
        """Replace the parameters by their means, if there are any."""
        for name, mean in self.means.items():
            parameters[name].copy_(mean)
