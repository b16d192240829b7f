"""Losses of preference pairs, where the parts of a weighted training ask for losses of rows."""

from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, load_from_disk
from trl import DPOConfig

from boost_trl.cache_folder import cache_folder
from boost_trl.files import whole_folder
from boost_trl.losses.preference import pair_losses
from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID, take_ids
from boost_trl.trainer.row_weights.losses import RowLossAccumulator
from boost_trl.trainer.row_weights.optimizer_batch import MicroBatch, take_micro_batch
from boost_trl.trainer.row_weights.prepared_rows import fingerprint
from boost_trl.trainer.row_weights.scoring_losses import PoolLosses
from boost_trl.trainer.row_weights.selector_step import SelectorStep
from boost_trl.trainer.row_weights.validation import VALIDATION_ROWS, RowwiseValidationLoss


def losses_of_pairs(log_probs: torch.Tensor, inputs: dict[str, Any], args: DPOConfig) -> torch.Tensor:
    """Equation (39) from TRL's fused forward and the reference's log-probabilities in the batch.

    Args:
        log_probs (`torch.Tensor`): (2B, width) of the labels, 0 where there is none; chosen rows first.
        inputs (`dict`): the batch as TRL's collator makes it.
        args ([`~trl.DPOConfig`]): which loss.

    Returns:
        `torch.Tensor`: (B,).
    """
    device, mask = log_probs.device, inputs["completion_mask"]
    # Prompt-learning adapters put virtual tokens in front.
    chosen, rejected = log_probs[:, -(mask.size(1) - 1) :].sum(dim=1).chunk(2)
    chosen = chosen - inputs["ref_chosen_logps"].to(device)
    rejected = rejected - inputs["ref_rejected_logps"].to(device)
    if args.loss_type[0] == "ipo":
        chosen_length, rejected_length = mask.sum(dim=1).clamp(min=1).to(device).chunk(2)
        chosen, rejected = chosen / chosen_length, rejected / rejected_length
    smoothing = args.label_smoothing
    return pair_losses(chosen, rejected, loss_type=args.loss_type[0], beta=args.beta, label_smoothing=smoothing)


def model_inputs(inputs: dict[str, Any]) -> dict[str, Any]:
    """The part of a batch of pairs that the model reads."""
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "labels": labels}


class PairSelectorStep(SelectorStep):
    """[`SelectorStep`] by the losses of pairs."""

    @torch.no_grad()
    def observe(
        self, micro_batch: MicroBatch, fused, inputs: dict[str, Any], into: RowLossAccumulator | None = None
    ) -> None:
        ids, losses = micro_batch.ids.flatten(), losses_of_pairs(fused.log_probs, inputs, self.args)
        counted = torch.ones_like(ids, dtype=torch.bool)
        if micro_batch.is_counted is not None:
            counted = micro_batch.is_counted.flatten()
        into = self.row_losses if into is None else into
        into.add(ids[counted], losses[counted.to(losses.device)])

    def _fused(self, inputs):
        return self.forward(**model_inputs(inputs))


class PairValidationLoss(RowwiseValidationLoss):
    """L_0 as the mean of equation (39) over trusted pairs."""

    def num_items(self, batches, scaled):
        return self.batch_size * len(batches) * self._accelerator.num_processes

    def loss_sum(self, model, inputs):
        outputs = model(**model_inputs(inputs), use_cache=False, fused_lm_head=True)
        losses = losses_of_pairs(outputs.log_probs, inputs, self.args)
        return losses.sum(), len(inputs[VALIDATION_ROWS])


class PairPoolLosses(PoolLosses):
    """[`PoolLosses`] of pairs, of which `forward` returns the losses themselves."""

    def num_terms(self, batch: dict[str, Any]) -> int:
        return len(batch[EXAMPLE_ID])

    def loss(self, inputs: dict[str, Any], numbers: np.ndarray, weights: np.ndarray) -> torch.Tensor:
        take_micro_batch(inputs)
        return self._forward(inputs).mean()


def shared_on_disk(dataset: Dataset) -> Dataset:
    """The rows of a dataset in memory, read from one file by all processes: TRL's one writes the reference's log-probabilities
    beside it, and the others look for them there."""
    rows, ids = take_ids(dataset)
    folder = cache_folder("preference_pairs") / fingerprint(rows)
    with PartialState().main_process_first():
        if not folder.is_dir():
            with whole_folder(folder) as draft:
                rows.save_to_disk(draft)
    rows = load_from_disk(folder)
    return rows if ids is None else rows.add_column(EXAMPLE_ID, ids)
