"""The upper level's loss L_0 on batches of a trusted validation set."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from datasets import Dataset
from transformers import DataCollator, PreTrainedTokenizerBase, ProcessorMixin
from trl import DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from boost_trl.losses.preference import pair_losses
from boost_trl.trainer.common.checkpoint_error import CheckpointError
from boost_trl.trainer.common.endless_sampler import EndlessSampler
from boost_trl.trainer.row_weights.config import RowWeightsConfig
from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID, take_ids
from boost_trl.trainer.row_weights.failed_preparation import prepare_or_name_row
from boost_trl.trainer.row_weights.forward import EvaluationForward
from boost_trl.trainer.row_weights.losses import num_labels, token_losses
from boost_trl.trainer.row_weights.optimizer_batch import MICRO_BATCH
from boost_trl.trainer.row_weights.prepared_rows import check_tokens_are_known, fingerprint, rows_without_prediction


logger = get_logger(__name__)

VALIDATION_ROWS = "_validation_rows"


class ValidationLoss:
    """L_0 over an endless shuffled stream of the validation set: the mean token loss of SFT, the pool's `loss_type`.

    The stream is one for the whole run: an optimizer step takes the next `batch_size` × micro-batches × processes rows,
    whichever way they are split.

    Args:
        dataset ([`~datasets.Dataset`]): the raw validation set; where its rows carry numbers, messages call them by these.
        args ([`RowWeightsConfig`]): batch size, loss and seed.
        accelerator ([`~accelerate.Accelerator`]): says which rows are this process's.
        collator (`Callable`): the training's.
        processing_class: the training's tokenizer or processor.
        prepare (`Callable`): `(dataset, name) -> dataset`, TRL's preparation.
        count_items (`Callable`): tokens with a label in batches of all processes, as TRL's normaliser counts them.
        forward ([`~boost_trl.trainer.row_weights.forward.EvaluationForward`]): of the present model.
        vocab_size (`int`): tokens that the model knows.

    Raises:
        ValueError: if nothing is left of the set after preparation, or a row has a token that the model does not know.
    """

    def __init__(
        self,
        dataset: Dataset,
        args: RowWeightsConfig,
        accelerator: Accelerator,
        collator: DataCollator,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin,
        prepare: Callable[[Dataset, str], Dataset],
        count_items: Callable[[list[dict[str, Any]]], torch.Tensor | int | None],
        forward: EvaluationForward,
        vocab_size: int,
    ):
        self.args, self._accelerator, self._processing_class = args, accelerator, processing_class
        self._prepare, self._count_items, self._forward = prepare, count_items, forward
        self._train_batch_size = args.train_batch_size
        self._collator = collator
        if isinstance(collator, DataCollatorForVisionLanguageModeling):  # tokenizes, so it needs to know the format
            self._collator = replace(collator, completion_only_loss=learns_completions_only(dataset, args))
        prepared = self.prepare(dataset)
        check_tokens_are_known(prepared, vocab_size, lambda number: f"row {number} of `validation_dataset`")
        self.dataset, self._numbers = take_ids(prepared)
        if len(self.dataset) == 0:
            raise ValueError(
                "nothing is left of `validation_dataset` after preparation: no row has a token to learn within "
                "`max_length` (the first token of a row is never learned)"
            )
        self._fingerprint = fingerprint(self.dataset)
        self.sampler = EndlessSampler(len(self.dataset), args.seed if args.data_seed is None else args.data_seed)

    @property
    def batch_size(self) -> int:
        """Rows per device and micro-batch. It shrinks with the training batch that `auto_find_batch_size` finds."""
        asked = self.args.per_device_validation_batch_size or self.args.per_device_train_batch_size
        return max(1, asked * self._train_batch_size // self.args.train_batch_size)

    def prepare(self, dataset: Dataset) -> Dataset:
        dataset = self._prepare(dataset, "validation")
        if "labels" not in dataset.column_names:  # as with images, which are prepared with each batch
            return dataset
        empty = rows_without_prediction(dataset)
        if not len(empty):
            return dataset
        logger.warning(
            f"{len(empty)} of {len(dataset)} rows of `validation_dataset` have no token to learn: left out."
        )
        return dataset.select(np.setdiff1d(np.arange(len(dataset)), empty))

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return self._collator(rows)

    def take(self, num_batches: int) -> list[dict[str, Any]]:
        """This process's batches for the next optimizer step, on the CPU."""
        size, world, rank = self.batch_size, self._accelerator.num_processes, self._accelerator.process_index
        rows = self.sampler.take(size * world * num_batches)
        starts = [(number * world + rank) * size for number in range(num_batches)]
        return [self.batch(rows[start : start + size]) for start in starts]

    def batch(self, rows: list[int]) -> dict[str, Any]:
        return {**self.collate([self.dataset[row] for row in rows]), VALIDATION_ROWS: torch.tensor(rows)}

    def num_items(self, batches: list[dict[str, Any]], scaled: bool) -> torch.Tensor | int | None:
        """Divisor of the summed losses of `batches`, over all processes; `None`: each batch's own count."""
        return self._count_items(batches) if scaled else None

    def num_terms(self, batch: dict[str, Any]) -> int:
        """Tokens with a loss in one batch, or rows where each has one; known before the forward."""
        return num_labels(batch)

    def loss_sum(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | int]:
        """Summed loss of one batch and the number of its terms (tokens here, else rows)."""
        outputs = model(**_model_inputs(inputs), use_cache=False, fused_lm_head=True)
        return token_losses(outputs.log_probs, self.args.loss_type).sum(), outputs.label_mask.sum()

    def explain(self, loss: float, batches: list[dict[str, Any]], step: int) -> str:
        """Message for a validation loss of an optimizer batch that is not finite, after `step` optimizer steps. It names the row
        that has such a loss by itself and without dropout, if there is one. Every process has to call it.
        """
        rows = torch.cat([batch[MICRO_BATCH].validation[VALIDATION_ROWS] for batch in batches])
        losses = torch.tensor([self._loss_of(row) for row in rows.tolist()])
        rows, losses = (
            self._accelerator.gather(column.to(self._accelerator.device)).cpu() for column in (rows, losses)
        )
        bad = torch.nonzero(~losses.isfinite()).flatten()
        what, how_many, where = "the validation loss", "", "a bad row in `validation_dataset`"
        if len(bad) and self._numbers is not None:
            loss, where = float(losses[bad[0]]), "this row's text"
            what = f"the loss of row {self._numbers[rows[bad[0]]]} of `validation_dataset`"
            how_many = f" ({len(bad)} of {len(rows)} rows have none that is finite)"
        return (
            f"{what} is {loss} at step {step + 1}{how_many}; no weight can be learned from it: look for a learning rate that "
            f"is too high, or for {where}"
        )

    def _loss_of(self, row: int) -> float:
        with self._forward.model() as model:
            return float(self.loss_sum(model, self._forward.prepare_inputs(self.batch([row])))[0])

    def begin(self, train_batch_size: int) -> None:
        """Called when the model is ready for training, with this many rows per process and micro-batch."""
        self._train_batch_size = train_batch_size

    def state(self) -> dict[str, torch.Tensor]:
        """State for an exact continuation."""
        return {
            "validation_position": torch.tensor(self.sampler.position),
            "validation_fingerprint": _encoded(self._fingerprint),
        }

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue from a saved state.

        Raises:
            CheckpointError: if the state was made with other rows.
        """
        if not torch.equal(state["validation_fingerprint"], _encoded(self._fingerprint)):
            raise CheckpointError(
                "the checkpoint was written with another `validation_dataset`: its rows differ, their order, or how they "
                "were tokenized or truncated; resume with the same one, or start a new run with the checkpoint as `model`"
            )
        self.sampler.position = int(state["validation_position"])


class RowwiseValidationLoss(ValidationLoss):
    """L_0 as the mean of a loss per row."""

    def num_terms(self, batch):
        return len(batch[VALIDATION_ROWS])

    def num_items(self, batches, scaled):
        if not scaled:
            return None
        everywhere = self.args.average_tokens_across_devices
        return self.batch_size * len(batches) * (self._accelerator.num_processes if everywhere else 1)


class CallableValidationLoss(RowwiseValidationLoss):
    """L_0 from the user's `(model, inputs) -> losses`, one per row."""

    def __init__(self, loss: Callable, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss = loss

    def loss_sum(self, model, inputs):
        losses = self.loss(model, _model_inputs(inputs))
        if not isinstance(losses, torch.Tensor) or losses.dim() > 1 or losses.numel() not in (1, self.batch_size):
            shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
            raise ValueError(
                f"`validation_loss` must return a tensor of one loss per row, shape ({self.batch_size},), or their mean; "
                f"got {shape}"
            )
        if torch.is_grad_enabled() and not losses.requires_grad:
            raise ValueError(
                "`validation_loss` returned a tensor without a gradient, from which nothing is learned; compute it from "
                "the model's outputs, without `detach()`, `torch.no_grad()`, `item()` or a whole-number type"
            )
        return losses.sum() * (self.batch_size / losses.numel()), self.batch_size


class DPOValidationLoss(RowwiseValidationLoss):
    """L_0 as the DPO loss −log σ(β (log π/π_ref (chosen) − log π/π_ref (rejected))) on preference rows.

    π_ref is the model as it is before its first step; its log-probabilities are computed once and kept with checkpoints.
    """

    reference: torch.Tensor | None = None

    def prepare(self, dataset):
        tokenizer = getattr(self._processing_class, "tokenizer", self._processing_class)
        self._collator = DataCollatorForPreference(
            pad_token_id=tokenizer.pad_token_id,
            max_length=self.args.max_length,
            truncation_mode=self.args.truncation_mode,
            pad_to_multiple_of=self.args.pad_to_multiple_of,
        )
        # DPOTrainer's own preparation; of its trainer it reads the tokenizer only.
        unbound = SimpleNamespace(_tokenizer=tokenizer)
        return prepare_or_name_row(
            lambda rows: DPOTrainer._prepare_dataset(unbound, rows, self._processing_class, self.args, "validation"),
            dataset,
            lambda place: f"`validation_dataset`, row {dataset[place].get(EXAMPLE_ID, place)}",
        )

    def loss_sum(self, model, inputs):
        chosen, rejected = self._log_probs(model, inputs).chunk(2)
        reference = self.reference[inputs[VALIDATION_ROWS].cpu()].to(chosen.device)
        losses = pair_losses(chosen - reference[:, 0], rejected - reference[:, 1], beta=self.args.dpo_beta)
        return losses.sum(), len(losses)

    @staticmethod
    def _log_probs(model, inputs) -> torch.Tensor:
        """(2B,) summed over the completion; chosen rows first."""
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            labels=inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100),
            use_cache=False,
            fused_lm_head=True,
        )
        # Prompt-learning adapters put virtual tokens in front.
        return outputs.log_probs[:, -(inputs["input_ids"].size(1) - 1) :].sum(dim=1)

    def begin(self, train_batch_size):
        super().begin(train_batch_size)
        if self.reference is not None:
            return
        log_probs = []
        for start in range(0, len(self.dataset), self.batch_size):
            rows = list(range(start, min(start + self.batch_size, len(self.dataset))))
            own = self._log_probs(self._forward, self.batch(rows))
            log_probs.append(torch.stack(own.chunk(2), dim=1).float().cpu())
        self.reference = torch.cat(log_probs)

    def state(self):
        return {**super().state(), "reference_log_probs": self.reference}

    def load_state(self, state):
        super().load_state(state)
        self.reference = state["reference_log_probs"]


def learns_completions_only(dataset: Dataset, args: Any) -> bool:
    """Whether the loss leaves prompts out: what `completion_only_loss` says, else TRL's rule for the columns."""
    if args.completion_only_loss is not None:
        return args.completion_only_loss
    return {"prompt", "completion"} <= set(dataset.column_names)


def num_input_tokens(inputs: dict[str, Any]) -> int:
    """Tokens that a batch holds, without padding, as TRL counts them in `num_tokens`."""
    if "attention_mask" in inputs:
        return int(inputs["attention_mask"].sum())
    return inputs["input_ids"].numel()  # flattened, without padding


def make_validation_loss(loss: str | Callable, *args, **kwargs) -> ValidationLoss:
    """The upper level that `loss` names, from the arguments of [`ValidationLoss`], on a set that
    [`~boost_trl.trainer.sft.checks.check_validation_dataset`] accepts.
    """
    if callable(loss):
        return CallableValidationLoss(loss, *args, **kwargs)
    return (DPOValidationLoss if loss == "dpo" else ValidationLoss)(*args, **kwargs)


def _encoded(text: str) -> torch.Tensor:
    """Text as safetensors can hold it."""
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _model_inputs(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != VALIDATION_ROWS}
