"""Losses of single rows under a trained model."""

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from trl import SFTTrainer


_PREPARED = ("input_ids", "completion_mask", "assistant_masks", "labels")


@torch.no_grad()
def mean_nll_per_row(trainer: SFTTrainer, dataset: Dataset) -> np.ndarray:
    """Mean negative log-likelihood of each row's labelled tokens under the trainer's model, without dropout.

    Args:
        trainer ([`~trl.SFTTrainer`]): its model and collator are used.
        dataset (`Dataset`): rows that it has prepared.

    Returns:
        `np.ndarray`: (rows,) float64, in nats per token.
    """
    model, device = trainer.model, trainer.args.device
    model.eval()
    losses = []
    rows = dataset.select_columns([name for name in _PREPARED if name in dataset.column_names])
    for batch in DataLoader(rows, trainer.args.per_device_eval_batch_size, collate_fn=trainer.data_collator):
        inputs = {name: value.to(device) for name, value in batch.items()}
        labels = inputs.pop("labels")[:, 1:]
        logits = model(**inputs, use_cache=False).logits[:, :-1].float()
        token_losses = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        losses.append(token_losses.sum(1) / (labels != -100).sum(1).clamp(min=1))
    return torch.cat(losses).double().cpu().numpy()
