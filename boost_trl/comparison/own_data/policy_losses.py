"""Losses of single trajectories under a policy that value heads define."""

from collections.abc import Sequence

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.offline_rl.backbone import tokenize_options


@torch.no_grad()
def policy_losses(trainer: BilevelOfflineRLTrainer, rows: Dataset, betas: Sequence[float]) -> np.ndarray:
    """The mean over each row's action tokens of −ln π_β(a | s), π_β the trainer's extracted policy.

    Args:
        trainer ([`BilevelOfflineRLTrainer`]): its policy and tokenizer are used.
        rows (`Dataset`): R trajectories.
        betas (`Sequence[float]`): B values of β.

    Returns:
        `np.ndarray` of shape `(B, R)`: float64, in nats per token; NaN for a row without a whole action.
    """
    policy = trainer.policy().eval()
    device = next(policy.parameters()).device
    options = tokenize_options(policy.causal_lm, trainer.args)
    losses = np.full((len(betas), len(rows)), np.nan)
    for place, row in enumerate(tokenize_trajectories(rows, trainer.processing_class, name="validation", **options)):
        if row is None:
            continue
        ids = torch.from_numpy(row.input_ids)[None].long().to(device)
        positions = torch.from_numpy(row.action_positions).long().to(device)
        for number, beta in enumerate(betas):
            policy.beta = beta
            logits = policy(ids, logits_to_keep=positions - 1, use_cache=False).logits[0].float()
            losses[number, place] = cross_entropy(logits, ids[0, positions]).item()
    return losses
