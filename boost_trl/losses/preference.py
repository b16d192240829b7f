"""Losses of preference pairs, one number per pair."""

import torch
import torch.nn.functional as F


# Those of TRL's `DPOConfig.loss_type` that are a function of one pair's log-ratios.
PAIR_LOSSES = ("sigmoid", "hinge", "ipo", "robust")


def pair_losses(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    *,
    loss_type: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    r"""Loss of each pair by the difference \\( \Delta \\) of its log-ratios \\( \log \pi/\pi_\text{ref} \\), equation (39).

    Args:
        chosen (`torch.Tensor`): (B,) log-ratio of the preferred answer, summed over its tokens; for `"ipo"` their mean.
        rejected (`torch.Tensor`): (B,) the same of the other answer.
        loss_type (`str`, *optional*, defaults to `"sigmoid"`): −log σ(βΔ); `"hinge"`: max(0, 1 − βΔ); `"ipo"`:
            (Δ − 1/(2β))²; `"robust"`: ((1−ε)(−log σ(βΔ)) − ε(−log σ(−βΔ)))/(1−2ε).
        beta (`float`, *optional*, defaults to `0.1`): β.
        label_smoothing (`float`, *optional*, defaults to `0.0`): ε of `"robust"`.

    Returns:
        `torch.Tensor`: (B,).

    Raises:
        ValueError: for a loss that is not of a pair alone.
    """
    margins = chosen - rejected
    if loss_type == "sigmoid":
        return -F.logsigmoid(beta * margins)
    if loss_type == "hinge":
        return torch.relu(1 - beta * margins)
    if loss_type == "ipo":
        return (margins - 1 / (2 * beta)) ** 2
    if loss_type == "robust":
        kept, flipped = -F.logsigmoid(beta * margins), -F.logsigmoid(-beta * margins)
        return ((1 - label_smoothing) * kept - label_smoothing * flipped) / (1 - 2 * label_smoothing)
    raise ValueError(f"`loss_type` must be one of {', '.join(map(repr, PAIR_LOSSES))}, got {loss_type!r}")
