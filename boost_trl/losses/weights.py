"""From scores of trajectories or of their turns to normalised weights, and what the weights amount to."""

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
    return turn_weights(scores, torch.ones_like(scores))


def turn_weights(scores: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    r"""Softmax over all turns of the optimizer batch, each counting by its share of its trajectory, equation (35):
    \\( \tilde w_u = \eta_u e^{s_u} / \sum_v \eta_v e^{s_v} \\).

    Equal scores give every turn the weight that it has in a batch of trajectories that count alike. Where every trajectory
    is a single turn, or all turns of a trajectory have one score, it is [`trajectory_weights`].

    Args:
        scores (`torch.Tensor` of shape `(U,)`): Scores of all turns of the batch, see [`trajectory_weights`].
        shares (`torch.Tensor` of shape `(U,)`): \\( \eta_u \\), the part of its trajectory's action tokens that each turn has;
            positive.

    Returns:
        `torch.Tensor` of shape `(U,)`: float32 (float64 for float64 scores), sums to one, differentiable.

    Raises:
        ValueError: if `scores` and `shares` are not of one shape `(U,)`.
    """
    if scores.dim() != 1 or scores.shape != shares.shape:
        raise ValueError(
            f"`scores` and `shares` must both have shape (U,), got {tuple(scores.shape)}, {tuple(shares.shape)}"
        )
    scores = at_least_float32(scores)
    return (scores + shares.to(scores).log()).softmax(dim=0)


def effective_sample_size(weights: torch.Tensor, shares: torch.Tensor | None = None) -> torch.Tensor:
    r"""\\( n_\mathrm{eff} = 1 / \sum_i \tilde w_i^2 \\), equation (17): N for uniform weights, 1 when one trajectory
    has them all. For weights of turns \\( 1 / \sum_u \tilde w_u^2 / \eta_u \\), equation (37), also in trajectories: N where
    weights are proportional to shares.

    Args:
        weights (`torch.Tensor` of shape `(N,)` or `(U,)`): Normalised weights (they sum to one).
        shares (`torch.Tensor` of shape `(U,)`, *optional*): of turns, as in [`turn_weights`].

    Returns:
        `torch.Tensor`: a scalar.
    """
    squares = at_least_float32(weights).square()
    return (squares if shares is None else squares / shares.to(squares)).sum().reciprocal()


def weight_entropy(weights: torch.Tensor, shares: torch.Tensor | None = None) -> torch.Tensor:
    r"""\\( -\sum_i \tilde w_i \ln \tilde w_i \\) in nats: ln N for uniform weights, 0 when one trajectory has them
    all. For weights of turns \\( -\sum_u \tilde w_u \ln (\tilde w_u / \eta_u) \\): the same where a trajectory's turns count
    alike.

    Args:
        weights (`torch.Tensor` of shape `(N,)` or `(U,)`): Normalised weights (they sum to one). A weight of exactly zero
            counts zero.
        shares (`torch.Tensor` of shape `(U,)`, *optional*): of turns, as in [`turn_weights`].

    Returns:
        `torch.Tensor`: a scalar.
    """
    weights = at_least_float32(weights)
    entropy = torch.special.entr(weights).sum()
    return entropy if shares is None else entropy + (weights * shares.to(weights).log()).sum()
