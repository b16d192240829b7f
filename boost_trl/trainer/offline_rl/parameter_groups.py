"""Backbone, θ and ψ as optimizer groups that a phase can freeze, and the copy θ ← ψ."""

import torch

from boost_trl.models.policy_with_value_heads import PolicyWithValueHeads
from boost_trl.trainer.common.engines import gathered, innermost_optimizer, optimized_tensors


ROLES = ("backbone", "primary", "auxiliary")


def split_groups_by_role(optimizer: torch.optim.Optimizer, model: PolicyWithValueHeads) -> None:
    """Split every parameter group by role, so that [`freeze_all_but`] can freeze one."""
    roles = {parameter: model.role_of(name) for name, parameter in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        for role in ROLES:
            parameters = [parameter for parameter in group["params"] if roles[parameter] == role]
            if parameters:
                groups.append({**group, "params": parameters, "role": role, "frozen": False})
    optimizer.param_groups[:] = groups


class FrozenGroups:
    """Keeps an optimizer from stepping frozen groups: for the time of a step they have no gradients. Zero gradients would
    still move Adam by its moments and by weight decay; absent ones do not.

    Args:
        optimizer: as it is when training begins; what an engine steps need not be what it was given.
    """

    def __init__(self, optimizer):
        inner = innermost_optimizer(optimizer)
        self._gradients: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._hooks = [inner.register_step_pre_hook(self._hide), inner.register_step_post_hook(self._restore)]

    def _hide(self, optimizer: torch.optim.Optimizer, args, kwargs) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"] if group["frozen"] else []:
                if parameter.grad is not None:
                    self._gradients.append((parameter, parameter.grad))
                    parameter.grad = None

    def _restore(self, optimizer: torch.optim.Optimizer, args, kwargs) -> None:
        # Offloaded to the CPU, a gradient is a buffer that the engine goes on writing into.
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        self._gradients.clear()

    def remove(self) -> None:
        """Let the optimizer be as it was."""
        for hook in self._hooks:
            hook.remove()


def freeze_all_but(optimizer, roles: tuple[str, ...]) -> None:
    """Let the next step move only the groups of `roles`."""
    for group in innermost_optimizer(optimizer).param_groups:
        group["frozen"] = group["role"] not in roles


@torch.no_grad()
def synchronize_primary(model: PolicyWithValueHeads, optimizer) -> None:
    """θ ← ψ: heads, target heads, adapters where each policy has its own, Adam moments and step counts ([B] Algorithm 1,
    line 9)."""
    with gathered((p for name, p in model.named_parameters() if model.role_of(name) != "backbone"), modify=True):
        model.synchronize_primary()
    inner = innermost_optimizer(optimizer)
    primary, auxiliary = (
        [tensor for group, tensor in optimized_tensors(optimizer) if group["role"] == role]
        for role in ("primary", "auxiliary")
    )
    for target, source in zip(primary, auxiliary, strict=True):
        # Under ZeRO these are flat partitions, not the module's parameters, which follow them at the next step only.
        target.copy_(source)
        if source in inner.state:
            inner.state[target] = {
                name: value.clone() if isinstance(value, torch.Tensor) else value
                for name, value in inner.state[source].items()
            }
