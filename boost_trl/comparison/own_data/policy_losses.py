"""Losses of single trajectories under a policy that value heads define."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.models.value_policy import ValuePolicy


@torch.no_grad()
def policy_losses(
    policy: ValuePolicy, rows: Dataset, betas: Sequence[float], tokenizer: PreTrainedTokenizerBase, **options: Any
) -> np.ndarray:
    """The mean over each row's action tokens of −ln π_β(a | s).

    Args:
        policy ([`ValuePolicy`]): π; its β is changed.
        rows (`Dataset`): R trajectories.
        betas (`Sequence[float]`): B values of β.
        tokenizer (`PreTrainedTokenizerBase`), options (*optional*): of [`~data.tokenization.tokenize_trajectories`].

    Returns:
        `np.ndarray` of shape `(B, R)`: float64, in nats per token; NaN for a row without a whole action.
    """
    policy.eval()
    device = next(policy.parameters()).device
    losses = np.full((len(betas), len(rows)), np.nan)
    for place, row in enumerate(tokenize_trajectories(rows, tokenizer, name="validation", **options)):
        if row is None:
            continue
        ids = torch.from_numpy(row.input_ids)[None].long().to(device)
        positions = torch.from_numpy(row.action_positions).long().to(device)
        for number, beta in enumerate(betas):
            policy.beta = beta
            logits = policy(ids, logits_to_keep=positions - 1, use_cache=False).logits[0].float()
            losses[number, place] = cross_entropy(logits, ids[0, positions]).item()
    return losses
