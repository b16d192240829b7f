"""A running mean of trained parameters over the last part of training."""

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from boost_trl.models.sharded_tensor import whole_tensor
from boost_trl.trainer.common.engines import gathered, keeps_copies, whole_shape
from boost_trl.trainer.common.fsdp import set_from_main_process


# Bytes of a mean that still lies beside the parameters. A larger one, a float32 copy of all that is trained, might not fit
# there; on the CPU, `add` takes a copy of the parameters across.
LARGEST_ON_DEVICE = 2**30


class ParameterAverage:
    """The mean, in float32, of named parameters over the moments at which `add` was called."""

    def __init__(self):
        self.count = 0
        self.means: dict[str, torch.Tensor] = {}

    def allocate(self, parameters: dict[str, nn.Parameter]) -> None:
        """Make room for the means of `parameters` before they are needed, where they will stay: on the parameters' devices,
        or on the CPU if they take more than a gigabyte. Means that there are keep their values. Under ZeRO-3 and FSDP2 the
        main process alone has them."""
        if not keeps_copies(parameters.values()):
            self.means = {}
            return
        fits = sum(whole_shape(parameter).numel() for parameter in parameters.values()) * 4 <= LARGEST_ON_DEVICE
        for name, parameter in parameters.items():
            device = parameter.device if fits else torch.device("cpu")
            if name in self.means:
                self.means[name] = self.means[name].to(device)
            else:
                self.means[name] = torch.zeros(whole_shape(parameter), dtype=torch.float32, device=device)

    def reset(self) -> None:
        """Start anew; the room stays."""
        self.count = 0

    @torch.no_grad()
    def add(self, parameters: dict[str, nn.Parameter]) -> None:
        """Let `parameters`, those of `allocate`, count as much as at each earlier moment."""
        self.count += 1
        for name, parameter in parameters.items():
            with gathered([parameter]):
                mean, value = self.means.get(name), whole_tensor(parameter)
                if mean is None:
                    continue
                if self.count == 1:
                    mean.copy_(value)
                else:
                    mean.lerp_(value.to(mean), 1 / self.count)

    @torch.no_grad()
    def apply_to(self, parameters: dict[str, nn.Parameter]) -> None:
        """Replace the parameters by their means, if there are any."""
        if self.count:
            for name, parameter in parameters.items():
                if isinstance(parameter, DTensor):
                    set_from_main_process(parameter, self.means.get(name))
                    continue
                with gathered([parameter], modify=True):
                    if name in self.means:
                        parameter.copy_(self.means[name])
