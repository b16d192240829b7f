"""Metrics of the policy updates between two entries of the log: means over their rows, tokens or updates."""

from collections import defaultdict

import torch
from accelerate import Accelerator
from torch import nn

from boost_trl.models.sharded_tensor import whole_tensor
from boost_trl.trainer.common.engines import innermost_optimizer
from boost_trl.trainer.offline_rl.optimizer_batch import MicroBatch
from boost_trl.trainer.offline_rl.parameter_groups import ROLES


class RunningMeans:
    """Means by name, over all processes. Sums stay on the device until `take`."""

    def __init__(self):
        self._totals: dict[str, list] = defaultdict(lambda: [0.0, 0.0])

    def __bool__(self) -> bool:
        return bool(self._totals)

    def add(self, name: str, total, count) -> None:
        """Let `total`, a sum over `count` things, enter the mean `name`."""
        self._totals[name][0] += total
        self._totals[name][1] += count

    def clear(self) -> None:
        """Forget what was added."""
        self._totals.clear()

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """All means; forgets what was added. All processes have added the same names."""
        names = sorted(self._totals)
        totals = torch.tensor([[float(x) for x in self._totals[name]] for name in names], device=accelerator.device)
        if accelerator.num_processes > 1:
            totals = accelerator.reduce(totals)
        self.clear()
        return {name: (total / count).item() for name, (total, count) in zip(names, totals) if count > 0}


def add_losses(
    means: RunningMeans,
    micro_batch: MicroBatch,
    weighted_losses: torch.Tensor,
    token_losses: dict[str, torch.Tensor],
    alpha: float,
) -> None:
    """Let the losses of a micro-batch enter `train_loss_weighted`, `validation_loss` and the means over tokens.

    Args:
        means (`RunningMeans`): changed in place.
        micro_batch (`MicroBatch`): the plan.
        weighted_losses (`torch.Tensor` of shape `(B,)`): each row's part of the batch's loss.
        token_losses (`dict`): of `token_losses`, (N,) each.
        alpha (`float`): what training rows were multiplied by.
    """
    weighted_losses = weighted_losses.detach()
    is_validation = torch.as_tensor(micro_batch.is_validation, device=weighted_losses.device)
    # Selecting rows by their kind would wait for the device.
    upper, lower = (torch.where(kind, weighted_losses, 0).sum() for kind in (is_validation, ~is_validation))
    means.add("train_loss_weighted", lower / (alpha or 1.0), micro_batch.training_share)
    means.add("validation_loss", upper, micro_batch.validation_share)
    for name, value in token_losses.items():
        label = {"q": "mean_q", "v": "mean_v"}.get(name, f"{name}_loss")
        if name != "loss":
            means.add(label, value.detach().sum(), len(value))


def gradient_norms(optimizer) -> dict[str, torch.Tensor]:
    """The norm of the gradient of every role that the next step moves, by name."""
    gradients = defaultdict(list)
    for group in innermost_optimizer(optimizer).param_groups:
        if not group["frozen"]:
            gradients[group["role"]] += [p.grad for p in group["params"] if p.grad is not None]
    return {
        f"grad_norm_{role}": whole_tensor(nn.utils.get_total_norm(gradients[role]))
        for role in ROLES
        if gradients[role]
    }
