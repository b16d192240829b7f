"""ℓ of whole trajectories or of their turns, without a gradient: for evaluation and for phase 4."""

from collections.abc import Callable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from boost_trl.data.trajectory_store import TrajectoryBatch, TrajectoryStore
from boost_trl.trainer.offline_rl.optimizer_batch import unit_scale
from boost_trl.trainer.offline_rl.token_losses import sum_by_unit


@torch.no_grad()
def unit_losses(
    store: TrajectoryStore,
    rows: np.ndarray,
    roles: tuple[str, ...],
    losses_of: Callable[[TrajectoryBatch, tuple[str, ...]], dict],
    *,
    batch_size: int,
    normalization: str,
    accelerator: Accelerator,
) -> np.ndarray:
    """ℓ of the units of `rows`, equation (36), under each role, (len(roles), U). Every process passes the same rows, computes
    its share of them, `batch_size` at a time, and gets all losses.

    Args:
        store (`TrajectoryStore`): where the rows are; what its units are, trajectories or turns.
        rows (`np.ndarray` of shape `(B,)`): row numbers.
        roles (`tuple[str, ...]`): of `"primary"` and `"auxiliary"`.
        losses_of (`Callable`): token losses by role of a batch on the device, as of `forward_token_losses`.
        batch_size (`int`): rows of one process in a forward pass.
        normalization (`str`): `loss_normalization`.
        accelerator (`Accelerator`): whose processes share the work.
    """
    share = -(-len(rows) // accelerator.num_processes)
    mine = rows[accelerator.process_index * share :][:share]
    losses: list[list[float]] = []
    for start in range(0, share, batch_size):
        piece = mine[start : start + batch_size]
        # All processes run the same number of forwards, or those that wrappers make collective would wait for ever.
        batch = store.collate(piece if len(piece) else rows[:1]).to(accelerator.device)
        output = losses_of(batch, roles)
        sums = torch.stack([sum_by_unit(output[role]["loss"], batch) for role in roles])
        losses += sums.T.tolist() if len(piece) else []
    if accelerator.num_processes > 1:
        losses = gather_object(losses)
    return np.asarray(losses).T * unit_scale(store.units, rows, normalization)
