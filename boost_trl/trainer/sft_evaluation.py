"""The former place and form of [`boost_trl.trainer.sft.evaluation.mean_nll_per_row`]."""

import warnings

import numpy as np
from datasets import Dataset
from trl import SFTTrainer

from boost_trl.trainer.sft.evaluation import mean_nll_per_row


__all__ = ["row_losses"]

warnings.warn(
    "`boost_trl.trainer.sft_evaluation.row_losses` is now `boost_trl.trainer.sft.evaluation.mean_nll_per_row`; the old name "
    "will be removed in the next version",
    FutureWarning,
    stacklevel=2,
)


def row_losses(trainer: SFTTrainer, dataset: Dataset) -> np.ndarray:
    """`mean_nll_per_row` of the trainer's model."""
    pad, batch_size = trainer.processing_class.pad_token_id, trainer.args.per_device_eval_batch_size
    return mean_nll_per_row(trainer.model, dataset, pad, batch_size)
