"""Initialisation of the value heads: the LM's own output matrix, calibrated on training rows."""

import logging

import numpy as np
import torch
from torch import nn

from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.models.hidden_states import adapters_disabled, base_causal_lm, final_hidden_states
from boost_trl.models.lm_logits import LMLogits, joined, lm_logits
from boost_trl.models.value_heads import ValueHeads


logger = logging.getLogger(__name__)

CALIBRATION_ROWS = 512
# Means need no more tokens than this, and wide models could not hold more states.
CALIBRATION_TOKENS = 16384
# A first value loss above this multiple of the CQL term would drown it.
LARGEST_INITIAL_RATIO = 3.0
SMALLEST_SCALE = 2.0**-10
# Where softmax(Q) is compared with the LM, V numbers a token.
DIVERGENCE_ROWS = 8
DIVERGENCE_TOKENS_PER_ROW = 8
# Rounding and the noise between twin heads stay below it.
NOTABLE_DIVERGENCE = 0.02


def output_matrix(model: nn.Module) -> torch.Tensor:
    """The LM's output matrix, (V, d)."""
    return base_causal_lm(model).get_output_embeddings().weight


@torch.no_grad()
def initialize_value_heads(
    heads: ValueHeads, backbone: nn.Module, store: TrajectoryStore, *, init: str, cql_weight: float, seed: int
) -> None:
    """Set Q so that softmax(Q) is the LM's distribution (`init="lm_head"`) or at random, then the bias so that the mean of
    Q(s,a) over up to 512 rows is the mean normalised return; W is halved until what Q adds to the variance of the returns in
    the first value loss is at most 3 times the CQL term. A warning says how far softmax(Q) is from the LM where it is not it.

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
    head = base_causal_lm(backbone).get_output_embeddings()
    lm = _lm_at_some_actions(backbone, store)
    factor, scale = lm.best_factor(), 1.0
    while True:
        generator.manual_seed(seed)
        heads.initialize_from_lm_head(head.weight, factor * scale, generator, bias=head.bias)
        q_taken, q_logsumexp = heads.q_statistics(states, actions)
        shift = returns.mean() - q_taken.mean(dim=1)
        value_loss = (q_taken + shift[:, None] - returns).square().mean() - returns.var(correction=0)
        cql_loss = cql_weight * (q_logsumexp - q_taken).mean()
        if cql_weight == 0 or value_loss <= LARGEST_INITIAL_RATIO * cql_loss or scale <= SMALLEST_SCALE:
            break
        scale /= 2
    heads.shift_bias(shift, returns.mean().item())
    divergence = lm.divergence(heads.q_logits(lm.hidden, "mean")).item()
    if divergence > NOTABLE_DIVERGENCE:
        reasons = _why_not_the_lm(heads, lm, scale, factor, has_bias=head.bias is not None)
        logger.warning(f"softmax(Q) starts {divergence:.2g} nats from the language model's distribution: {reasons}")


@torch.no_grad()
def reference_head(backbone: nn.Module, store: TrajectoryStore) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight (V, d) and bias (V,), if there is one, whose softmax of the hidden state is the unmodified LM's distribution, or
    as near to it as a linear head gets; float32."""
    head = base_causal_lm(backbone).get_output_embeddings()
    with adapters_disabled(backbone):
        factor = _lm_at_some_actions(backbone, store).best_factor()
    return factor * head.weight.float(), None if head.bias is None else factor * head.bias.float()


def _why_not_the_lm(heads: ValueHeads, lm: LMLogits, scale: float, factor: float, has_bias: bool) -> str:
    reasons = []
    if scale < 1:
        reasons.append(
            f"the heads start at {scale:g} times the LM's output matrix, or their value loss would drown CQL"
        )
    if heads.config.rank is not None:
        reasons.append(f"`value_head_rank`={heads.config.rank} holds no more of it")
    if has_bias and heads.config.bias == "scalar":
        reasons.append("the LM's output head has a bias per token, which value_head_bias='token' would take over")
    bent = lm.divergence(factor * lm.head).item()
    if bent > NOTABLE_DIVERGENCE:
        reasons.append(f"its logits are not linear in the hidden state, as with a soft cap ({bent:.2g} nats of it)")
    return "; ".join(reasons) or "the two Q heads differ by 1 % of their entries"


def _lm_at_some_actions(backbone: nn.Module, store: TrajectoryStore) -> LMLogits:
    """The LM before action tokens of evenly spaced rows: few, because each holds V numbers."""
    rows = np.unique(np.linspace(0, len(store) - 1, DIVERGENCE_ROWS).astype(int))
    parts = []
    backbone.eval()
    for row in rows:
        batch = store.collate([row], tokens=True)
        chosen = np.unique(np.linspace(0, len(batch.actions) - 1, DIVERGENCE_TOKENS_PER_ROW).astype(int))
        positions = batch.state_index[batch.action_index[torch.from_numpy(chosen)]]
        parts.append(lm_logits(backbone, batch.input_ids[0], positions))
    backbone.train()
    return joined(parts)


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
