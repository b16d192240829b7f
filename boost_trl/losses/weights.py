"""From trajectory scores to normalised weights, and what the weights amount to."""

import torch

from .precision import at_least_float32


def trajectory_weights(scores: torch.Tensor) -> torch.Tensor:
    r"""Softmax over the optimizer batch, equation (11): \\( \tilde w_i = e^{s_i} / \sum_j e^{s_j} \\).

    Args:
        scores (`torch.Tensor` of shape `(B,)`): Scores of all trajectories of the batch: every micro-batch of the
            accumulation window on every process. A softmax over a micro-batch of one row would make each weight 1 and
            the scores' gradient 0.

    Returns:
        `torch.Tensor` of shape `(B,)`: float32 (float64 for float64 scores), sums to one, differentiable.

    Raises:
        ValueError: if `scores` is not one-dimensional.
    """
    if scores.dim() != 1:
        raise ValueError(f"`scores` must have shape (B,), got {tuple(scores.shape)}")
    return at_least_float32(scores).softmax(dim=0)


def effective_sample_size(weights: torch.Tensor) -> torch.Tensor:
    r"""\\( n_\mathrm{eff} = 1 / \sum_i \tilde w_i^2 \\), equation (17): N for uniform weights, 1 when one trajectory
    has them all.

    Args:
        weights (`torch.Tensor` of shape `(N,)`): Normalised weights (they sum to one).

    Returns:
        `torch.Tensor`: a scalar.
    """
    return at_least_float32(weights).square().sum().reciprocal()


def weight_entropy(weights: torch.Tensor) -> torch.Tensor:
    r"""\\( -\sum_i \tilde w_i \ln \tilde w_i \\) in nats: ln N for uniform weights, 0 when one trajectory has them
    all.

    Args:
        weights (`torch.Tensor` of shape `(N,)`): Normalised weights (they sum to one). A weight of exactly zero counts
            zero.

    Returns:
        `torch.Tensor`: a scalar.
    """
    return torch.special.entr(at_least_float32(weights)).sum()
