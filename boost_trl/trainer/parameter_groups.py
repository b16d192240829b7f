"""Backbone, θ and ψ as optimizer groups that a phase can freeze, and the copy θ ← ψ."""

import torch

from boost_trl.models.policy_with_value_heads import PolicyWithValueHeads


ROLES = ("backbone", "primary", "auxiliary")


def split_groups_by_role(optimizer: torch.optim.Optimizer, model: PolicyWithValueHeads) -> None:
    """Split every parameter group by role, and drop the gradients of frozen groups before each step.

    Zero gradients would still move Adam by its moments and by weight decay; absent ones do not.
    """
    roles = {parameter: model.role_of(name) for name, parameter in model.named_parameters()}
    groups = []
    for group in optimizer.param_groups:
        for role in ROLES:
            parameters = [parameter for parameter in group["params"] if roles[parameter] == role]
            if parameters:
                groups.append({**group, "params": parameters, "role": role, "frozen": False})
    optimizer.param_groups[:] = groups
    optimizer.register_step_pre_hook(_drop_frozen_gradients)


def _drop_frozen_gradients(optimizer: torch.optim.Optimizer, args, kwargs) -> None:
    for group in optimizer.param_groups:
        if group["frozen"]:
            for parameter in group["params"]:
                parameter.grad = None


def innermost_optimizer(optimizer) -> torch.optim.Optimizer:
    """The torch optimizer inside Accelerate's and DeepSpeed's wrappers."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def freeze_all_but(optimizer, roles: tuple[str, ...]) -> None:
    """Let the next step move only the groups of `roles`."""
    for group in innermost_optimizer(optimizer).param_groups:
        group["frozen"] = group["role"] not in roles


@torch.no_grad()
def synchronize_primary(model: PolicyWithValueHeads, optimizer) -> None:
    """θ ← ψ: heads, target heads, adapters where each policy has its own, Adam moments and step counts ([B] Algorithm 1,
    line 9)."""
    model.synchronize_primary()
    inner = innermost_optimizer(optimizer)
    primary, auxiliary = (
        [parameter for group in inner.param_groups if group["role"] == role for parameter in group["params"]]
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
