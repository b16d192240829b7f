"""The reweighting head φ in training: weights of an optimizer batch, the exact gradient of phase 4, and its fit to weights of
another origin."""

from collections.abc import Sequence

import numpy as np
import torch

from boost_trl.losses import trajectory_weights
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
    """w_φ fitted by least squares to given log-weights, so that the softmax of its scores weighs rows that were never
    scored.

    Args:
        embeddings (`torch.Tensor` of shape `(N, d)`): of the scored rows.
        log_weights (`np.ndarray` of shape `(N,)`): ln w with mean zero; only differences matter.
        args (`BilevelOfflineRLConfig`): the head, and the seed of the batches.
        steps (`int`, *optional*, defaults to 400): updates of up to 256 rows.
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


class TrajectoryReweighter:
    """φ over cached trajectory embeddings, with its own Adam. It lives outside the wrapped model, equal on all processes.

    Args:
        head (`ReweightingHead`): w_φ.
        embeddings (`torch.Tensor` of shape `(N, d)`): of every training trajectory.
        learning_rate (`float`): of φ.
    """

    def __init__(self, head: ReweightingHead, embeddings: torch.Tensor, learning_rate: float):
        self.head = head
        self.embeddings = embeddings
        self.optimizer = torch.optim.Adam(head.parameters(), lr=learning_rate)

    @torch.no_grad()
    def scores(self, rows: Sequence[int] | None = None) -> torch.Tensor:
        """w_φ of `rows` (all by default), (B,)."""
        return self.head(self.embeddings if rows is None else self.embeddings[torch.as_tensor(rows)])

    def weights(self, rows: Sequence[int]) -> torch.Tensor:
        """w̃: the softmax of the scores over one optimizer batch, (B,)."""
        return trajectory_weights(self.scores(rows))

    def update(self, rows: Sequence[int], gaps: torch.Tensor, alpha: float) -> float:
        """One step of φ on α Σ_i w̃_i (ℓ_i(θ) − ℓ_i(ψ)): equation (15), [B] Algorithm 1, line 17.

        Args:
            rows (`Sequence[int]`): the whole optimizer batch, all processes, in the same order everywhere.
            gaps (`torch.Tensor` of shape `(B,)`): ℓ_i(θ) − ℓ_i(ψ).
            alpha (`float`): α.

        Returns:
            `float`: the objective before the step.
        """
        weights = trajectory_weights(self.head(self.embeddings[torch.as_tensor(rows)]))
        objective = alpha * (weights * gaps.to(weights)).sum()
        self.optimizer.zero_grad()
        objective.backward()
        self.optimizer.step()
        return objective.item()
