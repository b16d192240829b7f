"""From the heads' outputs to one loss per action token, in normalised returns."""

import numpy as np
import torch

from boost_trl.data.trajectory_store import TrajectoryBatch
from boost_trl.losses import ilql_loss, mc_loss
from boost_trl.models.value_heads import ValueHeadsConfig


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


def row_scale(action_counts: np.ndarray, normalization: str) -> np.ndarray:
    """What turns each row's token sum into ℓ(τ) under `loss_normalization`, given the action tokens of all rows of the
    batch, (B,)."""
    if normalization == "trajectory_mean":
        return 1 / action_counts
    if normalization == "token_mean":
        return np.full(len(action_counts), len(action_counts) / action_counts.sum())
    return np.ones(len(action_counts))


def sum_by_row(values: torch.Tensor, batch: TrajectoryBatch) -> torch.Tensor:
    """Sums of token values (N,) over each trajectory, (B,)."""
    return torch.zeros(len(batch.lengths), dtype=values.dtype, device=values.device).index_add_(0, batch.row, values)
