"""From a batch through the model to one loss per action token, in normalised returns."""

import torch
from torch import nn

from boost_trl.data.trajectory_store import TrajectoryBatch
from boost_trl.losses import ilql_loss, mc_loss
from boost_trl.models.value_heads import ValueHeadsConfig
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


def forward_token_losses(
    model: nn.Module,
    batch: TrajectoryBatch,
    roles: tuple[str, ...],
    heads: ValueHeadsConfig,
    args: BilevelOfflineRLConfig,
    anchored: bool = False,
    token_weights: torch.Tensor | None = None,
) -> dict:
    """[`token_losses`] by role, after one forward pass.

    Args:
        model (`nn.Module`): a [`PolicyWithValueHeads`], perhaps wrapped by an engine.
        batch (`TrajectoryBatch`): on the device of `model`; cached states are used where it has them.
        roles (`tuple[str, ...]`): of `"primary"` and `"auxiliary"`.
        heads (`ValueHeadsConfig`): algorithm and normalisation constants.
        args (`BilevelOfflineRLConfig`): the loss.
        anchored (`bool`, *optional*, defaults to `False`): add `"anchor"`, a zero that depends on every parameter.
        token_weights (`torch.Tensor` of shape `(N,)`, *optional*): what each token's loss counts for in the objective, up to
            a factor, if it is to be differentiated: gradients are then taken as it is computed.
    """
    source = {"states": batch.states}
    if batch.states is None:
        source = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    output = model(
        action_index=batch.action_index,
        actions=batch.actions,
        state_index=batch.state_index,
        roles=roles,
        anchored=anchored,
        logsumexp_grad=None if token_weights is None else args.cql_weight * token_weights,
        **source,
    )
    # Value losses are float32 whatever the autocast type of the forward.
    with torch.autocast(batch.actions.device.type, enabled=False):
        losses = {
            role: token_losses(
                output[role],
                batch,
                heads,
                cql_weight=args.cql_weight,
                expectile=args.expectile,
                half_squared_error=args.half_squared_error,
            )
            for role in roles
        }
    return {**losses, "anchor": output["anchor"]["zero"]} if anchored else losses


def token_losses(
    output: dict[str, torch.Tensor],
    batch: TrajectoryBatch,
    heads: ValueHeadsConfig,
    *,
    cql_weight: float,
    expectile: float,
    half_squared_error: bool,
) -> dict[str, torch.Tensor]:
    """The value loss of every action token and its parts.

    Args:
        output (`dict`): what [`PolicyWithValueHeads`] returned for one role.
        batch (`TrajectoryBatch`): the N action tokens, on the device of `output`.
        heads (`ValueHeadsConfig`): algorithm and normalisation constants.

    Returns:
        `dict` of float32 tensors (N,): `loss`; its weighted parts `td`, `cql` and, for ILQL, `expectile`; `q` and, for
        ILQL, `v` in the environment's units, detached.
    """
    q_taken = output["q_taken"]
    if heads.algorithm == "mc":
        returns = (batch.returns - heads.return_shift) / heads.return_scale
        parts = mc_loss(
            q_taken[0],
            output["q_logsumexp"][0],
            returns,
            cql_weight=cql_weight,
            half_squared_error=half_squared_error,
            return_parts=True,
        )
        extra = {}
    else:
        values = output["values"]
        # Where there is no next state, any index does: the factor is 0.
        next_index = torch.where(batch.has_next, batch.action_index + 1, batch.action_index)
        parts = ilql_loss(
            q_taken,
            output["q_logsumexp"],
            values[batch.action_index],
            values.detach()[next_index] * batch.has_next,
            output["target_q"],
            batch.rewards / heads.return_scale,
            discount=batch.discounts,
            expectile=expectile,
            cql_weight=cql_weight,
            half_squared_error=half_squared_error,
            return_parts=True,
        )
        extra = {"v": values.detach()[batch.action_index] * heads.return_scale + heads.return_shift}
    q = q_taken.detach().amin(dim=0) * heads.return_scale + heads.return_shift
    return {"loss": sum(parts.values()), **parts, "q": q, **extra}


def sum_by_trajectory(values: torch.Tensor, batch: TrajectoryBatch) -> torch.Tensor:
    """Sums of token values (N,) over each trajectory, (B,)."""
    return values.new_zeros(len(batch.lengths)).index_add_(0, batch.row, values)


def sum_by_unit(values: torch.Tensor, batch: TrajectoryBatch) -> torch.Tensor:
    """Sums of token values (N,) over each unit, a trajectory or one of its turns, (U,)."""
    return values.new_zeros(len(batch.unit_lengths)).index_add_(0, batch.unit, values)
