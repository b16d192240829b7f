"""Losses of single rows under a trained model."""

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling


@torch.no_grad()
def mean_nll_per_row(model: nn.Module, dataset: Dataset, pad_token_id: int, batch_size: int = 8) -> np.ndarray:
    """Mean negative log-likelihood of each row's labelled tokens, without dropout.

    Args:
        model (`nn.Module`): a causal LM.
        dataset (`Dataset`): with the columns `input_ids` and `labels`, one row in each place: an
            [`~trl.SFTTrainer`]'s `train_dataset` or one of its `eval_dataset` that it has not packed.
        pad_token_id (`int`): for the shorter rows of a batch.
        batch_size (`int`, *optional*, defaults to `8`): rows of a forward pass.

    Returns:
        `np.ndarray`: (rows,) float64, in nats per token.
    """
    model.eval()
    device = next(model.parameters()).device
    losses = []
    rows = dataset.select_columns(["input_ids", "labels"])
    for batch in DataLoader(rows, batch_size, collate_fn=DataCollatorForLanguageModeling(pad_token_id)):
        inputs = {name: value.to(device) for name, value in batch.items()}
        labels = inputs.pop("labels")[:, 1:]
        logits = model(**inputs, use_cache=False).logits[:, :-1].float()
        token_losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        losses.append(token_losses.sum(1) / (labels != -100).sum(1).clamp(min=1))
    return torch.cat(losses).double().cpu().numpy()
