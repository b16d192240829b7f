"""The reweighting head φ in training: weights of an optimizer batch, the exact gradient of phase 4, and its fit to weights of
another origin."""

from collections.abc import Sequence

import numpy as np
import torch

from boost_trl.losses import turn_weights
from boost_trl.models.reweighting_head import ReweightingHead
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


def new_reweighting_head(embeddings: torch.Tensor, args: BilevelOfflineRLConfig) -> ReweightingHead:
    """w_φ as it starts, the same for the same seed: a small random network, standardised to `embeddings` (N, d) if
    `standardize_embeddings`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        head = ReweightingHead(embeddings.shape[1], args.reweighting_head_size, args.reweighting_head_depth)
    if args.standardize_embeddings:
        head.fit_standardization(embeddings)
    return head


def fitted_reweighting_head(
    embeddings: torch.Tensor, log_weights: np.ndarray, args: BilevelOfflineRLConfig, steps: int = 400
) -> ReweightingHead:
    """w_φ fitted by least squares to given log-weights, so that the softmax of its scores weighs rows or turns that were
    never scored.

    Args:
        embeddings (`torch.Tensor` of shape `(U, d)`): of the scored rows or turns.
        log_weights (`np.ndarray` of shape `(U,)`): ln w (of turns: beyond ln of the share) with mean zero; only differences
            matter.
        args (`BilevelOfflineRLConfig`): the head, and the seed of the batches.
        steps (`int`, *optional*, defaults to 400): updates of up to 256 of them.
    """
    head, targets = new_reweighting_head(embeddings, args), torch.from_numpy(log_weights).float()
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(args.seed)
    for step in range(steps):
        rows = torch.randint(len(targets), (min(256, len(targets)),), generator=generator)
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        (head(embeddings[rows]) - targets[rows]).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return head


class Reweighter:
    """φ over cached embeddings of all units (trajectories, or turns), with its own Adam. It lives outside the wrapped model,
    equal on all processes.

    Args:
        head (`ReweightingHead`): w_φ.
        embeddings (`torch.Tensor` of shape `(U, d)`): of every unit of the training rows.
        shares (`np.ndarray` of shape `(U,)`): the part of its row's action tokens that each unit has.
        learning_rate (`float`): of φ.
    """

    def __init__(self, head: ReweightingHead, embeddings: torch.Tensor, shares: np.ndarray, learning_rate: float):
        self.head = head
        self.embeddings = embeddings
        self.shares = torch.from_numpy(shares)
        self.optimizer = torch.optim.Adam(head.parameters(), lr=learning_rate)

    @torch.no_grad()
    def scores(self) -> torch.Tensor:
        """w_φ of all units, (U,)."""
        return self.head(self.embeddings)

    @torch.no_grad()
    def weights(self, units: Sequence[int] | np.ndarray) -> torch.Tensor:
        """w̃: the softmax of the scores over `units`, those of one optimizer batch, equations (11) and (35)."""
        return self._weights(units)

    def _weights(self, units: Sequence[int] | np.ndarray) -> torch.Tensor:
        units = torch.as_tensor(units)
        return turn_weights(self.head(self.embeddings[units]), self.shares[units])

    def update(self, units: Sequence[int] | np.ndarray, gaps: torch.Tensor, alpha: float) -> float:
        """One step of φ on α Σ_u w̃_u (ℓ_u(θ) − ℓ_u(ψ)): equation (15), [B] Algorithm 1, line 17.

        Args:
            units (`Sequence[int]` or `np.ndarray`): those of the whole optimizer batch, all processes, in the same order everywhere.
            gaps (`torch.Tensor` of shape `(len(units),)`): ℓ_u(θ) − ℓ_u(ψ).
            alpha (`float`): α.

        Returns:
            `float`: the objective before the step.
        """
        weights = self._weights(units)
        objective = alpha * (weights * gaps.to(weights)).sum()
        self.optimizer.zero_grad()
        objective.backward()
        self.optimizer.step()
        return objective.item()
