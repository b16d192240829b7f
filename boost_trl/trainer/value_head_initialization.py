"""Where the value heads start: the LM's own output matrix, calibrated on training rows (SPEC §3)."""

import logging

import numpy as np
import torch
from torch import nn

from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.models.hidden_states import base_causal_lm, final_hidden_states
from boost_trl.models.value_heads import ValueHeads


logger = logging.getLogger(__name__)

CALIBRATION_ROWS = 512
# Means need no more tokens than this, and wide models could not hold more states.
CALIBRATION_TOKENS = 16384
# A first value loss above this multiple of the CQL term would drown it.
LARGEST_INITIAL_RATIO = 3.0
SMALLEST_SCALE = 2.0**-10


def output_matrix(model: nn.Module) -> torch.Tensor:
    """The LM's output matrix, (V, d)."""
    return base_causal_lm(model).get_output_embeddings().weight


@torch.no_grad()
def initialize_value_heads(
    heads: ValueHeads, backbone: nn.Module, store: TrajectoryStore, *, init: str, cql_weight: float, seed: int
) -> None:
    """Set W from the LM's output matrix (`init="lm_head"`) or at random, then the bias so that the mean of Q(s,a) over
    up to 512 rows is the mean normalised return; W is halved until what Q adds to the variance of the returns in the first
    value loss is at most 3 times the CQL term.

    Args:
        heads (`ValueHeads`): changed in place, targets included.
        backbone (`nn.Module`): the causal LM, on its device.
        store (`TrajectoryStore`): training rows.

    Raises:
        ValueError: if a hidden state, a Q value or a return is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    states, actions, returns = _calibration_tokens(backbone, store)
    returns = ((returns - heads.config.return_shift) / heads.config.return_scale).to(states.device)
    for name, values in (("hidden state of the model", states), ("normalised return", returns)):
        if not values.isfinite().all():
            raise ValueError(f"a {name} is not finite: training cannot start from it")
    if init == "random":
        heads.initialize_random(generator=generator)
        q_taken, _ = heads.q_statistics(states, actions)
        heads.shift_bias(returns.mean() - q_taken.mean(dim=1), returns.mean().item())
        return
    scale = 1.0
    while True:
        generator.manual_seed(seed)
        heads.initialize_from_lm_head(output_matrix(backbone), logit_scale=scale, generator=generator)
        q_taken, q_logsumexp = heads.q_statistics(states, actions)
        shift = returns.mean() - q_taken.mean(dim=1)
        value_loss = (q_taken + shift[:, None] - returns).square().mean() - returns.var(correction=0)
        cql_loss = cql_weight * (q_logsumexp - q_taken).mean()
        if cql_weight == 0 or value_loss <= LARGEST_INITIAL_RATIO * cql_loss or scale <= SMALLEST_SCALE:
            break
        scale /= 2
    if scale < 1:
        logger.warning(
            f"the heads start at {scale:g} times the LM's output matrix, or their value loss would drown CQL"
        )
    heads.shift_bias(shift, returns.mean().item())


def _calibration_tokens(backbone: nn.Module, store: TrajectoryStore):
    """States, actions and returns of evenly spaced rows."""
    rows = np.linspace(0, len(store) - 1, min(CALIBRATION_ROWS, len(store))).astype(int)
    stride = max(1, int(store.action_counts[rows].sum()) // CALIBRATION_TOKENS)
    device = next(backbone.parameters()).device
    backbone.eval()
    pieces = []
    for start in range(0, len(rows), 16):
        batch = store.collate(rows[start : start + 16]).to(device)
        states = batch.states
        if states is None:
            hidden = final_hidden_states(backbone, batch.input_ids, batch.attention_mask)
            states = hidden.reshape(-1, hidden.shape[-1])[batch.state_index]
        pieces.append((states[batch.action_index[::stride]], batch.actions[::stride], batch.returns[::stride]))
    backbone.train()
    return tuple(torch.cat(piece) for piece in zip(*pieces))
