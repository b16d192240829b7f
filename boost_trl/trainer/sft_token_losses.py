"""What a token costs in the loss that the model is trained on, at both levels."""

import torch


def token_losses(log_probs: torch.Tensor, loss_type: str) -> torch.Tensor:
    """
    Losses of tokens as `SFTConfig.loss_type` defines them.

    Args:
        log_probs (`torch.Tensor`): log p of each label, any shape.
        loss_type (`str`): `"nll"`: −log p; `"dft"`: −p log p, with p a constant.

    Returns:
        `torch.Tensor`: the shape of `log_probs`, in nats.
    """
    return -log_probs * log_probs.exp().detach() if loss_type == "dft" else -log_probs
