"""Rewards-to-go, the targets of Monte-Carlo Q learning."""

import torch


def returns_to_go(rewards: torch.Tensor, discount: float | torch.Tensor = 1.0) -> torch.Tensor:
    r"""Discounted sums of the rewards that are still to come: \\( G_t = r_t + \gamma_t G_{t+1} \\), equation (1), with
    nothing after the last step.

    Args:
        rewards (`torch.Tensor` of shape `(T,)`): Reward received after each step (a turn or an action token).
        discount (`float` or `torch.Tensor` of shape `(T,)`, *optional*, defaults to `1.0`): \\( \gamma \\), or one
            factor per step where only some steps discount.

    Returns:
        `torch.Tensor` of shape `(T,)`, in the rewards' dtype (float32 for integers), without gradient.

    Raises:
        ValueError: if `rewards` is not one-dimensional, or `discount` is neither a number nor of the same shape.
    """
    if rewards.dim() != 1:
        raise ValueError(f"`rewards` must have shape (T,), got {tuple(rewards.shape)}")
    discounts = torch.as_tensor(discount)
    if discounts.dim() and discounts.shape != rewards.shape:
        raise ValueError(
            f"`discount` must be a number or have the rewards' shape {tuple(rewards.shape)}, got {tuple(discounts.shape)}"
        )
    # A recursion on Python floats: exact to float64, safe at discount 0, and faster than a tensor operation per step.
    factors = discounts.tolist() if discounts.dim() else [float(discount)] * len(rewards)
    returns, total = [], 0.0
    for reward, factor in zip(reversed(rewards.tolist()), reversed(factors)):
        total = reward + factor * total
        returns.append(total)
    dtype = rewards.dtype if rewards.is_floating_point() else torch.float32
    return torch.tensor(returns[::-1], dtype=dtype, device=rewards.device)
