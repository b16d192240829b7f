"""Monte-Carlo Q learning with a conservative term."""

import torch

from .precision import at_least_float32


def mc_loss(
    q_taken: torch.Tensor,
    q_logsumexp: torch.Tensor,
    returns: torch.Tensor,
    *,
    cql_weight: float,
    half_squared_error: bool = False,
    return_parts: bool = False,
) -> torch.Tensor | dict[str, torch.Tensor]:
    r"""Loss of every action token, equation (4), not reduced:

    $$ (Q(s,a) - G)^2 + c \left(\log\sum_{a'} e^{Q(s,a')} - Q(s,a)\right) $$

    Args:
        q_taken (`torch.Tensor` of shape `(T,)`): Q(s, a) of the actions taken, from [`q_statistics`].
        q_logsumexp (`torch.Tensor` of shape `(T,)`): Log-sum-exp of Q(s, ·) over the vocabulary, from
            [`q_statistics`].
        returns (`torch.Tensor` of shape `(T,)`): Reward-to-go G of every token; a constant to autograd.
        cql_weight (`float`): \\( c \\), the weight of the conservative (CQL) term.
        half_squared_error (`bool`, *optional*, defaults to `False`): ½ (Q − G)², as LMRL-Gym; the paper has no ½.
        return_parts (`bool`, *optional*, defaults to `False`): Return the parts, whose sum is the loss, instead of the
            loss.

    Returns:
        `torch.Tensor` of shape `(T,)`, or with `return_parts` a `dict` of `td` and `cql` (weight included), `(T,)`
        each.

    Raises:
        ValueError: if the three tensors are not of one shape `(T,)`.
    """
    if q_taken.dim() != 1 or not q_taken.shape == q_logsumexp.shape == returns.shape:
        raise ValueError(
            "q_taken, q_logsumexp and returns must all have shape (T,), got "
            f"{tuple(q_taken.shape)}, {tuple(q_logsumexp.shape)}, {tuple(returns.shape)}"
        )
    q_taken, q_logsumexp, returns = map(at_least_float32, (q_taken, q_logsumexp, returns.detach()))
    half = 0.5 if half_squared_error else 1.0
    parts = {"td": half * (q_taken - returns).square(), "cql": cql_weight * (q_logsumexp - q_taken)}
    return parts if return_parts else parts["td"] + parts["cql"]
