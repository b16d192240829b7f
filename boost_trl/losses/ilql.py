"""Implicit language Q learning with twin Q heads and a conservative term."""

import torch

from .precision import at_least_float32


def expectile_loss(u: torch.Tensor, tau: float) -> torch.Tensor:
    r"""\\( L_2^\tau(u) = |\tau - 1(u < 0)| \, u^2 \\), equation (6), elementwise; the weight is a constant to
    autograd.

    Args:
        u (`torch.Tensor`): Differences target − prediction. Its minimum over the prediction is the target's
            τ-expectile.
        tau (`float`): Between 0 and 1; above ½ leans towards the larger targets.

    Returns:
        `torch.Tensor`: of the shape of `u`.
    """
    return (tau - (u.detach() < 0).to(u.dtype)).abs() * u.square()


def ilql_loss(
    q_taken: torch.Tensor,
    q_logsumexp: torch.Tensor,
    values: torch.Tensor,
    next_values: torch.Tensor,
    target_q: torch.Tensor,
    rewards: torch.Tensor,
    *,
    discount: float | torch.Tensor,
    expectile: float,
    cql_weight: float,
    half_squared_error: bool = False,
    return_parts: bool = False,
) -> torch.Tensor | dict[str, torch.Tensor]:
    r"""Loss of every action token, equation (5), not reduced:

    $$ \sum_j \left(r + \gamma V(s') - Q_j(s,a)\right)^2 + L_2^\tau\left(\min_j \hat Q_j(s,a) - V(s)\right)
       + c \sum_j \left(\log\sum_{a'} e^{Q_j(s,a')} - Q_j(s,a)\right) $$

    V(s'), \\( \hat Q \\) and the expectile's weight are constants to autograd, so Q learns from the first and the last
    term and V from the second only.

    Args:
        q_taken (`torch.Tensor` of shape `(2, T)`): Q_j(s, a) of the actions taken, from [`q_statistics`].
        q_logsumexp (`torch.Tensor` of shape `(2, T)`): Log-sum-exp of Q_j(s, ·) over the vocabulary, from
            [`q_statistics`].
        values (`torch.Tensor` of shape `(T,)`): V(s).
        next_values (`torch.Tensor` of shape `(T,)`): V(s') at the next action token; already 0 after a terminated
            episode.
        target_q (`torch.Tensor` of shape `(2, T)`): \\( \hat Q_j(s,a) \\) of the target heads.
        rewards (`torch.Tensor` of shape `(T,)`): Reward received after each token.
        discount (`float` or `torch.Tensor` of shape `(T,)`): \\( \gamma \\), or one factor per token (1 within a turn,
            when discounting counts turns).
        expectile (`float`): \\( \tau \\).
        cql_weight (`float`): \\( c \\), the weight of the conservative (CQL) term.
        half_squared_error (`bool`, *optional*, defaults to `False`): ½ before both squared errors (Q and V), as
            LMRL-Gym; the paper has none.
        return_parts (`bool`, *optional*, defaults to `False`): Return the parts, whose sum is the loss, instead of the
            loss.

    Returns:
        `torch.Tensor` of shape `(T,)`, or with `return_parts` a `dict` of `td`, `expectile` and `cql` (weight
        included), `(T,)` each.

    Raises:
        ValueError: if a tensor's shape is not as above.
    """
    if q_taken.dim() != 2 or not q_taken.shape == q_logsumexp.shape == target_q.shape:
        raise ValueError(
            "q_taken, q_logsumexp and target_q must all have shape (2, T), got "
            f"{tuple(q_taken.shape)}, {tuple(q_logsumexp.shape)}, {tuple(target_q.shape)}"
        )
    per_token = {"values": values, "next_values": next_values, "rewards": rewards}
    if isinstance(discount, torch.Tensor) and discount.dim():
        per_token["discount"] = discount
    for name, tensor in per_token.items():
        if tensor.shape != q_taken.shape[1:]:
            raise ValueError(f"`{name}` must have shape {tuple(q_taken.shape[1:])}, got {tuple(tensor.shape)}")

    q_taken, q_logsumexp, values = map(at_least_float32, (q_taken, q_logsumexp, values))
    next_values, target_q, rewards = (at_least_float32(tensor.detach()) for tensor in (next_values, target_q, rewards))
    half = 0.5 if half_squared_error else 1.0
    parts = {
        "td": half * (rewards + discount * next_values - q_taken).square().sum(dim=0),
        "expectile": half * expectile_loss(target_q.amin(dim=0) - values, expectile),
        "cql": cql_weight * (q_logsumexp - q_taken).sum(dim=0),
    }
    return parts if return_parts else parts["td"] + parts["expectile"] + parts["cql"]
