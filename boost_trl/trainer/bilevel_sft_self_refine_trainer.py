"""SFTTrainer with example weights learned from a validation set."""

import contextlib
import copy
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.logging import get_logger
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from safetensors.torch import load_file, save_file
from transformers import (
    BitsAndBytesConfig,
    DataCollator,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalPrediction, TrainOutput, has_length
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import get_config_model_id

from boost_trl.hub_names import resolve_model_name
from boost_trl.selection import TokenBaseline, WeightConfidence, weight_confidence, weights_auc
from boost_trl.selection.selector import CONFIG_NAME, WEIGHTS_NAME
from boost_trl.trainer.bilevel_sft_self_refine_config import FREE_ON_RESUME, BilevelSFTSelfRefineConfig, loss_name
from boost_trl.trainer.common.checkpoints import (
    begin_checkpoint,
    check_settings,
    checkpoint_to_resume,
    incomplete,
    run_settings,
)
from boost_trl.trainer.common.engines import tell_deepspeed_the_device
from boost_trl.trainer.common.hub_upload import (
    push_checkpoint,
    push_without_pickled_arguments,
    put_pickled_arguments_aside,
)
from boost_trl.trainer.sft.checks import (
    check_eval_dataset,
    check_loss_can_be_weighted,
    check_not_streaming,
    check_online,
    check_parallelism,
    check_rows,
    check_validation_dataset,
    ignored_settings_warning,
    second_visit_warning,
    unused_weight_column_warning,
)
from boost_trl.trainer.sft.example_ids import (
    EXAMPLE_ID,
    IS_COUNTED,
    NO_EXAMPLE,
    ROW_IN_BATCH,
    ExampleIdCollator,
    hide_ids_in_labels,
    ids_of_predictions,
    numbers_of_rows,
    rows_in_batch,
    rows_per_pass,
    take_ids_from_labels,
)
from boost_trl.trainer.sft.losses import RowLosses, token_losses
from boost_trl.trainer.sft.optimizer_batch import BilevelCallback, Window
from boost_trl.trainer.sft.pool import StreamedPool, column_names, make_pool
from boost_trl.trainer.sft.prepared_rows import renumber, rows_to_learn
from boost_trl.trainer.sft.refine import ANSWER, NO_ANSWER, OnlineAnswers
from boost_trl.trainer.sft.results import (
    CONFIDENCE_NAME,
    DEFAULT_WEIGHT_COLUMN,
    EXAMPLE_WEIGHTS_NAME,
    MOST_OF_POOL,
    AnswerTokens,
    card_section,
    keep_aside,
    numbered,
    sample,
    select_top_rows,
    trusted_evaluation_rows,
)
from boost_trl.trainer.sft.validation import learns_completions_only, make_validation_loss, num_input_tokens


if TYPE_CHECKING:
    import optuna
    from peft import PeftConfig, PeftModel


logger = get_logger(__name__)

STATE_NAME = "bilevel_state.safetensors"
_VALIDATION = "_validation"


class BilevelSFTSelfRefineTrainer(SFTTrainer):
    """[`~trl.SFTTrainer`] that learns how much each training example should count, by watching a small trusted
    validation set.

    Without `validation_dataset`, and without `args.weight_column`, it trains exactly as [`~trl.SFTTrainer`] does. With a
    validation set, each step minimises the weighted loss of the training batch times γ plus the loss of a validation
    batch, and the weights follow the rule that `args.selector` names; see [`BilevelSFTSelfRefineConfig`]. `args.weight_column` alone multiplies each row's loss by a fixed number.

    Example:

    ```python
    >>> from boost_trl import BilevelSFTSelfRefineTrainer
    >>> from datasets import load_dataset

    >>> trainer = BilevelSFTSelfRefineTrainer(
    ...     model="Qwen/Qwen2.5-0.5B-Instruct",
    ...     train_dataset=load_dataset("tatsu-lab/alpaca", split="train"),
    ...     validation_dataset=load_dataset("json", data_files="trusted.jsonl", split="train"),
    ... )
    >>> trainer.train()
    >>> trainer.example_weights().sort("weight")[:10]
    ```

    Args:
        validation_dataset ([`~datasets.Dataset`], *optional*): Trusted rows in any format that `train_dataset` may
            have, or preference rows with `args.validation_loss="dpo"`. Training uses it; keep another set for
            evaluation.
        kwargs:
            All arguments of [`~trl.SFTTrainer`], in its order.

    Raises:
        ValueError: before training, for data or options that cannot be weighted; at a step, for a loss that is not
            finite.
    """

    _tag_names = ["trl", "sft", "bilevel-sft-self-refine"]
    _name = "Bilevel SFT Self-Refine"
    _paper = {
        "title": "A Unified Understanding of Offline Data Selection and Online Self-refining Generation for "
        "Post-training LLMs",
        "citation": """\
@misc{xiao2026unified,
    title        = {{A Unified Understanding of Offline Data Selection and Online Self-refining Generation for Post-training LLMs}},
    author       = {Quan Xiao and Tianyi Chen},
    year         = 2026,
}""",
    }

    def __init__(
        self,
        model: "str | PreTrainedModel | PeftModel",
        args: SFTConfig | TrainingArguments | None = None,
        data_collator: DataCollator | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset
        | IterableDataset
        | DatasetDict
        | IterableDatasetDict
        | dict[str, Dataset | IterableDataset]
        | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        compute_loss_func: Callable | None = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        quantization_config: "BitsAndBytesConfig | None" = None,
        peft_config: "PeftConfig | None" = None,
        formatting_func: Callable[[dict], str] | None = None,
        *,
        validation_dataset: Dataset | None = None,
    ):
        if args is None:
            model_name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = BilevelSFTSelfRefineConfig(f"{model_name.split('/')[-1]}-SFT")
        given = args
        if not isinstance(args, BilevelSFTSelfRefineConfig):
            args = BilevelSFTSelfRefineConfig.from_training_arguments(args)
            given = given if isinstance(given, SFTConfig) else args
        validation_loss = args.validation_loss
        if callable(validation_loss):
            # Arguments are saved with the model, functions are not.
            given = args = copy.copy(args)
            args.validation_loss = loss_name(validation_loss)

        learned = validation_dataset is not None
        given_train_dataset = train_dataset
        check_online(args, train_dataset, learned)
        if learned:
            check_validation_dataset(validation_dataset, args, validation_loss, formatting_func)
            if isinstance(train_dataset, Dataset):
                check_not_streaming(args)
            if args.max_steps <= 0:
                # With `max_steps` the number of epochs is known only once the data is; `_begin_training` checks it.
                args.penalty_schedule(args.num_train_epochs)
        self.pool = make_pool(train_dataset, args, learned)
        if isinstance(train_dataset, (Dataset, IterableDataset)):
            left_out = None if self.pool is None else self.pool.left_out
            check_rows(train_dataset, "train_dataset", args, formatting_func, left_out)
        check_eval_dataset(eval_dataset, args, formatting_func)
        self.selector = None
        if self.pool is not None:
            check_loss_can_be_weighted(args, compute_loss_func)
            train_dataset = self.pool.identified()
            if learned:
                self.selector = args.make_selector(self.pool.num_examples, self.pool.fingerprint)
        if self.selector is None or not self.selector.is_learned:
            # The model card must not claim what was not done.
            self._tag_names, self._name, self._paper = SFTTrainer._tag_names, SFTTrainer._name, SFTTrainer._paper
        if isinstance(model, str):
            model = resolve_model_name(model, **(args.model_init_kwargs or {}))
        tell_deepspeed_the_device()
        super().__init__(
            model=model,
            args=given if self.pool is None else args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_loss_func=compute_loss_func,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            quantization_config=quantization_config,
            peft_config=peft_config,
            formatting_func=formatting_func,
        )
        if self.pool is not None:
            check_parallelism(self, self.padding_free, learned)
            self._leave_out_empty_rows()
        warning = unused_weight_column_warning(given_train_dataset, args)
        if warning is not None:
            logger.warning(warning)
        if self.selector is None:
            warning = ignored_settings_warning(args, has_weight_column=self.pool is not None)
            if warning is not None:
                logger.warning(warning)
            return
        self.token_baseline = None
        if args.selector_baseline == "token":
            self.token_baseline = TokenBaseline(self.model.config.get_text_config().vocab_size)
        shares_weights = isinstance(self.pool, StreamedPool) and not self.pool.has_unique_ids
        self._row_losses = RowLosses(
            self.accelerator, self.token_baseline, args.selection_loss, repeat=not shares_weights
        )
        self.weight_confidence: WeightConfidence | None = None
        self._trusted = None
        if self.selector.is_learned and isinstance(self.train_dataset, Dataset):
            validation_dataset = self._keep_trusted_rows(validation_dataset, eval_dataset, validation_loss)
        self._validation = make_validation_loss(validation_dataset, self, validation_loss)
        self._online = OnlineAnswers(self) if args.online_ratio > 0 else None
        self._window: Window | None = None
        self._state_at_start: dict[str, torch.Tensor] | None = None
        self._answer_tokens: AnswerTokens | None = None
        self.add_callback(BilevelCallback(self))

    # Data

    def _leave_out_empty_rows(self) -> None:
        """Rows that preparation has dropped, or left without a token to predict, are none of the N."""
        if isinstance(self.pool, StreamedPool) or "labels" not in self.train_dataset.column_names:  # as with images
            return
        rows, count = rows_to_learn(self.train_dataset), self.pool.num_examples
        if len(rows) == count:
            return
        if not len(rows):
            raise ValueError(
                "nothing is left of `train_dataset` after preparation: no row has a token to learn within `max_length` "
                "(the first token of a row is never learned)"
            )
        first = self.pool.original_row(int(np.setdiff1d(np.arange(count), rows)[0]))
        logger.warning(
            f"{count - len(rows)} of {count} rows of `train_dataset` have no token to learn within `max_length`, row {first} "
            "the first of them: left out, with weight 0."
        )
        with self.args.main_process_first():
            self.train_dataset = renumber(self.train_dataset, rows, self.args.dataset_num_proc)
        self.pool.keep(rows)
        if self.selector is not None:
            self.selector = self.args.make_selector(len(rows), self.selector.dataset_fingerprint)

    def _prepare_dataset(self, dataset, processing_class, args, packing, formatting_func, dataset_name):
        if not packing or EXAMPLE_ID not in column_names(dataset):
            return super()._prepare_dataset(dataset, processing_class, args, packing, formatting_func, dataset_name)
        # Everything up to packing first: packing truncates and shuffles by itself.
        unpacked = copy.copy(args)
        unpacked.max_length, unpacked.shuffle_dataset = None, False
        dataset = super()._prepare_dataset(dataset, processing_class, unpacked, False, formatting_func, dataset_name)
        map_kwargs = {"num_proc": args.dataset_num_proc} if isinstance(dataset, Dataset) else {}
        with args.main_process_first():
            dataset = hide_ids_in_labels(dataset, **map_kwargs)
        dataset = super()._prepare_dataset(dataset, processing_class, args, True, None, dataset_name)
        with args.main_process_first():
            return take_ids_from_labels(dataset, **map_kwargs)

    def _keep_trusted_rows(self, validation_dataset: Dataset, eval_dataset, validation_loss) -> Dataset:
        """Find the rows for [`measure_confidence`]; what is left of the validation set."""
        if self.args.confidence_share == 0 or "labels" not in self.train_dataset.column_names:  # as with images
            return validation_dataset
        trusted = trusted_evaluation_rows(eval_dataset)
        if trusted is None and validation_loss != "dpo":
            count = len(validation_dataset)
            validation_dataset, trusted = keep_aside(validation_dataset, self.args.confidence_share, self.args.seed)
            if trusted is not None:
                logger.warning(
                    f"{len(trusted)} of {count} rows of `validation_dataset` are kept out of training, to measure how far the "
                    "weights can be trusted. Give trusted rows as `eval_dataset`, or set `confidence_share=0`, to train on "
                    "all of them."
                )
        if trusted is not None:
            self._trusted = numbered(self.prepare_like_evaluation(trusted, "trusted"))
        return validation_dataset

    def prepare_like_evaluation(self, dataset: Dataset, name: str) -> Dataset:
        """`dataset` with TRL's own preparation, never packed, with the columns that the collator reads.

        Unless the arguments say so, its own columns and not the training data's decide whether prompts are learned.
        """
        if not self._skip_prepare_dataset:
            of_training = self.completion_only_loss
            self.completion_only_loss = learns_completions_only(dataset, self.args)
            try:
                dataset = self._prepare_dataset(
                    dataset, self.processing_class, self.args, False, self._formatting_func, name
                )
            finally:
                self.completion_only_loss = of_training
        return self._remove_unused_columns(dataset, description=name)

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if self.pool is not None and EXAMPLE_ID not in self._signature_columns:
            self._signature_columns.append(EXAMPLE_ID)

    def get_train_dataloader(self):
        if self.pool is None:
            return super().get_train_dataloader()
        # Swapped for this one loader, so that `data_collator` stays what TRL and the user know.
        collator = self.data_collator
        self.data_collator = ExampleIdCollator(collator, self.padding_free)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    # One optimizer batch

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        batches, num_items_in_batch = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.selector is not None and batches:
            self._mark_padding(batches)
            if self._keeps_rows_whole:
                for batch in batches:
                    self._row_losses.add_rows(numbers_of_rows(batch))
            if self._online is not None:
                self._online.begin_window(batches)
                if num_items_in_batch is not None:
                    num_items_in_batch = self._online.count_items(batches)
                    if self.args.average_tokens_across_devices and self.accelerator.num_processes > 1:
                        num_items_in_batch = self.accelerator.reduce(num_items_in_batch, "sum")
            self._begin_window(batches, scaled=num_items_in_batch is not None)
        return batches, num_items_in_batch

    def _begin_window(self, batches: list[dict[str, Any]], scaled: bool) -> None:
        epoch = self.state.epoch or 0.0
        if self._steps_per_pass is not None:
            epoch = self.state.global_step / self._steps_per_pass
        validation_coefficient, pool_coefficient = self._penalty.coefficients(epoch)
        gamma = self._penalty.gamma(epoch)
        self._window = Window(batches, self._penalty.rho(epoch), gamma, pool_coefficient, validation_coefficient)
        if self.args.selector == "bmo_exact" and self.state.global_step % self.args.bmo_refresh_steps == 0:
            self._refresh_from_whole_pool()
        if self.selector.updates_before_weights:
            self._update_selector_by_extra_forward()
        validation = self._validation.take(len(batches))
        self._window.validation_items = self._validation.num_items(validation, scaled)
        # TRL's count, which has only its own batches.
        tokens = torch.tensor(sum(map(num_input_tokens, validation)), device=self.accelerator.device)
        self._total_train_tokens += int(self.accelerator.gather(tokens).sum())
        for batch, validation_batch in zip(batches, validation):
            batch[_VALIDATION] = validation_batch

    def _mark_padding(self, batches: list[dict[str, Any]]) -> None:
        """Rows that the sampler repeats to fill the last batch of an epoch must not count twice in the selector."""
        if isinstance(self.pool, StreamedPool):
            if self.pool.has_unique_ids and not self.args.packing:
                self._mark_repeated(batches)
            return
        processes, size = self.accelerator.num_processes, self._train_batch_size
        if processes == 1 or not self.accelerator.gradient_state.end_of_dataloader:
            return
        if self.accelerator.split_batches:
            size //= processes
        last = self._rows_per_pass % (size * processes)
        if last and not self.args.dataloader_drop_last:
            first = self.accelerator.process_index * size
            batches[-1][IS_COUNTED] = first + rows_in_batch(batches[-1]) < last

    @property
    def _keeps_rows_whole(self) -> bool:
        """Whether a row lies in one sequence, so that sequences tell how often it was drawn."""
        return not self.args.packing or self.args.packing_strategy == "bfd"

    def _mark_repeated(self, batches: list[dict[str, Any]]) -> None:
        ids = torch.cat([numbers_of_rows(batch) for batch in batches]).to(self.accelerator.device)
        if self.accelerator.num_processes > 1:
            ids = self.accelerator.gather(self.accelerator.pad_across_processes(ids, pad_index=NO_EXAMPLE))
        ids = ids[ids != NO_EXAMPLE].cpu().numpy()
        repeated = torch.from_numpy(self.pool.repeated(ids, self.accelerator.num_processes))
        for batch in batches:
            batch[IS_COUNTED] = ~torch.isin(batch[EXAMPLE_ID], repeated.to(batch[EXAMPLE_ID].device))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        ids, is_counted = inputs.pop(EXAMPLE_ID, None), inputs.pop(IS_COUNTED, None)
        validation, answers = inputs.pop(_VALIDATION, None), inputs.pop(ANSWER, None)
        inputs.pop(ROW_IN_BATCH, None)
        if ids is None or not self.model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

        captured = []

        def forward(*args, **kwargs):
            captured.append(model(*args, **kwargs))
            return captured[-1]

        result = super().compute_loss(forward, inputs, return_outputs, num_items_in_batch)
        loss, outputs = result if return_outputs else (result, None)
        fused = captured[0]
        scale = 1
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            scale = self.accelerator.num_processes // self.get_tp_size()

        # TRL's loss has every coefficient 1, so what is left to add is (coefficient − 1) times each token's loss: exactly
        # zero where the coefficient is 1.
        token_ids = ids_of_predictions(ids, fused.label_mask.size(1))[fused.label_mask]
        weights, shares = self._weights(token_ids), None
        if answers is not None:
            token_answers = ids_of_predictions(answers, fused.label_mask.size(1))[fused.label_mask]
            shares = self._online.shares(token_ids, token_answers)
            weights = weights * shares * self._online.response_weights(token_answers)
            if num_items_in_batch is None:
                weights = weights * (len(token_ids) / self._online.num_items(token_ids, token_answers))
        coefficient = 1.0 if validation is None else self._window.pool_coefficient
        change = torch.zeros_like(fused.log_probs).masked_scatter_(fused.label_mask, coefficient * weights - 1)
        losses = token_losses(fused.log_probs, self.args.loss_type)
        num_tokens = fused.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss = loss + scale * (change * losses).sum() / torch.as_tensor(num_tokens).clamp(min=1)

        if validation is not None:
            self._window.add_pool(losses[fused.label_mask].detach(), weights, shares)
            if self._sees_losses_of_training:
                self._add_row_losses(fused, inputs["labels"], ids, is_counted, self._row_losses, answers)
            upper, count = self._validation.loss_sum(model, validation)
            self._window.add_validation(upper.detach(), count)
            items = count if self._window.validation_items is None else self._window.validation_items
            loss = loss + scale * self._window.validation_coefficient * upper / torch.as_tensor(items).clamp(min=1)
            self._window.add_objective(loss.detach())
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def _weights(self, ids: torch.Tensor) -> torch.Tensor:
        """Factors of the token losses of these rows, float32."""
        rows, place = torch.unique(ids, return_inverse=True)
        weights = torch.ones(len(rows), device=ids.device)
        fixed = self.pool.fixed_weights(rows)
        if fixed is not None:
            weights = weights * fixed
        if self.selector is not None and self.selector.is_learned:
            weights = weights * self.selector.weights(rows)
        return weights[place]

    @property
    def _sees_losses_of_training(self) -> bool:
        """Whether the selector's losses are those of the training forward, or need one of their own."""
        return self.args.selector_loss_at == "current" and not self.selector.updates_before_weights

    @torch.no_grad()
    def _add_row_losses(self, fused, labels, ids, is_counted, row_losses: RowLosses, answers=None) -> None:
        kept = fused.label_mask
        width = kept.size(1)
        if is_counted is not None:
            kept = kept & ids_of_predictions(is_counted, width)
        ids, labels = ids_of_predictions(ids, width)[kept], ids_of_predictions(labels, width)[kept]
        if answers is None:
            row_losses.add(ids, -fused.log_probs[kept], labels)
            return
        answers = ids_of_predictions(answers, width)[kept]
        shares = self._online.row_shares(ids, answers)
        row_losses.add(ids, -fused.log_probs[kept], labels, shares, is_offline=answers == NO_ANSWER)

    def _update_selector(self) -> None:
        rows, losses = self._row_losses.collect(check=self._check_row_losses)
        gamma = self._window.gamma
        self.selector.update(rows, losses, gamma if math.isfinite(gamma) else 0.0)

    def _update_selector_by_extra_forward(self) -> None:
        for batch in self._window.batches:
            self._add_losses_without_gradient(batch, self._row_losses)
        self._update_selector()

    def _refresh_from_whole_pool(self) -> None:
        """Equation (27): the losses of all rows under the present model."""
        pool = self._remove_unused_columns(self.train_dataset)
        self.selector.refresh(*self._losses_of(pool, self._check_row_losses))

    def measure_confidence(self) -> WeightConfidence | None:
        """Confidence in the weights: where trusted rows that nothing trained on rank among up to 512 rows of the pool
        by the losses that weights are learned from. Every process has to call it.

        Returns:
            [`~boost_trl.selection.WeightConfidence`] or `None`: `None` without such rows, without learned weights, and for
            streaming data.
        """
        if self.selector is None or self._trusted is None:
            return None
        pool = sample(self._remove_unused_columns(self.train_dataset), MOST_OF_POOL, self.args.seed)
        trusted, pool = self._losses_of(self._trusted)[1], self._losses_of(pool)[1]
        if len(pool) and np.isfinite([*trusted, *pool]).all():  # else training says what is wrong
            self.weight_confidence = weight_confidence(trusted, pool)
        return self.weight_confidence

    def _losses_of(self, dataset: Dataset, check: Callable | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers and losses C_b of prepared rows under the present model, the same on every process."""
        collator = ExampleIdCollator(self.data_collator, self.padding_free)
        world, rank, size = self.accelerator.num_processes, self.accelerator.process_index, self._train_batch_size
        row_losses = RowLosses(self.accelerator, self.token_baseline, self.args.selection_loss)
        # Every process runs as many forwards as the others, on the last batch again where none is left for it.
        for start in range(0, len(dataset), size * world):
            first = start + rank * size
            rows = range(first, min(first + size, len(dataset))) or range(len(dataset) - 1, len(dataset))
            batch = collator([dataset[row] for row in rows])
            if first >= len(dataset):
                batch[IS_COUNTED] = torch.zeros_like(batch[EXAMPLE_ID], dtype=torch.bool)
            self._add_losses_without_gradient(batch, row_losses)
        return row_losses.collect(learn_baseline=False, check=check)

    def _check_row_losses(self, rows: np.ndarray, losses: np.ndarray) -> None:
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            raise ValueError(
                f"the loss of {self.pool.name_of(int(rows[bad[0]]))} is {losses[bad[0]]} at step "
                f"{self.state.global_step + 1} ({bad.size} of {len(rows)} rows have none that is finite); no weight can be "
                "learned from it: look for a learning rate that is too high, or for this row's text"
            )

    def _add_losses_without_gradient(self, batch: dict[str, Any], row_losses: RowLosses) -> None:
        # Evaluation mode: without dropout the losses do not depend on when they are computed, nor a resumed run on it.
        inputs = self._prepare_inputs({k: v for k, v in batch.items() if k not in (_VALIDATION, ROW_IN_BATCH)})
        ids, is_counted = inputs.pop(EXAMPLE_ID), inputs.pop(IS_COUNTED, None)
        answers = inputs.pop(ANSWER, None)
        with self.evaluation_forward() as model:
            fused = model(**inputs, use_cache=False, fused_lm_head=True)
        self._add_row_losses(fused, inputs["labels"], ids, is_counted, row_losses, answers)

    @contextlib.contextmanager
    def evaluation_forward(self):
        """The wrapped model in evaluation mode, without gradients and under the training's autocast."""
        model = self.model_wrapped
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                yield model
        finally:
            model.train(was_training)

    def count_items(self, batches: list[dict[str, Any]]) -> torch.Tensor | int | None:
        """Tokens with a label in `batches` of all processes, as TRL's normaliser counts them."""
        return self._get_num_items_in_batch(batches, self.args.device)

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: "optuna.Trial | dict[str, Any] | None" = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """As [`~transformers.Trainer.train`]. Called again, it goes on with the weights that it has learned."""
        if self.selector is not None:
            self._state_at_start = None
            if self._online is not None:
                self._online.answers = None  # those of an earlier training were another model's
            resume_from_checkpoint = checkpoint_to_resume(
                resume_from_checkpoint, self.args.output_dir, self.why_incomplete
            )
            if resume_from_checkpoint is not None:
                check_settings(Path(resume_from_checkpoint), run_settings(self.args, FREE_ON_RESUME))
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _begin_training(self, train_dataloader) -> None:
        """Fix the schedules, which need to know how long training lasts."""
        if has_length(train_dataloader):
            self._rows_per_pass = rows_per_pass(train_dataloader)
        steps_per_epoch = self._count_steps_per_epoch(train_dataloader)
        # A stream of unknown length does not tell where a pass ends, so ρ stays where it starts.
        num_epochs = 1 if steps_per_epoch is None else self.state.max_steps / steps_per_epoch
        if steps_per_epoch is None:
            steps_per_epoch = self.pool.num_examples / self.get_total_train_batch_size(self.args)
        else:
            warning = second_visit_warning(self.selector, num_epochs)
            if warning is not None:
                logger.warning(warning)
        # Trainer's `state.epoch` of a stream is the share of all steps.
        self._steps_per_pass = None if has_length(train_dataloader) else steps_per_epoch
        self._penalty = self.args.penalty_schedule(num_epochs)
        self.selector.set_schedule(self.state.max_steps, steps_per_epoch)
        self._validation.begin()
        if self._online is not None:
            self._online.begin_training(train_dataloader)
        if self.args.auto_find_batch_size:
            self._forget_failed_attempt()
        self._starts_inside_epoch = self.state.global_step > 0

    def _forget_failed_attempt(self) -> None:
        """Reset what is learned beside the model, so that every attempt at a batch size starts alike."""
        if self._state_at_start is None:
            state = self.selector.state_dict() | self._bilevel_state()
            self._state_at_start = {name: value.clone() for name, value in state.items()}
            return
        own = self.selector.state_dict().keys()
        self.selector.load_state_dict({name: self._state_at_start[name] for name in own})
        self._load_bilevel_state(self._state_at_start)
        self._row_losses.reset()
        self._metrics["train"].clear()

    def _count_steps_per_epoch(self, train_dataloader) -> int | None:
        """Optimizer steps of one pass over the training data; `None` for a stream that does not say how many rows it has."""
        micro_batches = self.args.gradient_accumulation_steps
        if has_length(train_dataloader):
            return math.ceil(len(train_dataloader) / micro_batches)
        if self.args.num_examples is None:
            return None
        # Trainer never drops the last batch of a stream, and makes no step of the micro-batches that are left over.
        batches = math.ceil(self.args.num_examples / (self._train_batch_size * self.accelerator.num_processes))
        return max(1, batches // micro_batches)

    def _begin_epoch(self) -> None:
        if isinstance(self.pool, StreamedPool) and self.pool.has_unique_ids:
            self.pool.begin_pass(from_start=not self._starts_inside_epoch)
        self._starts_inside_epoch = False

    def _end_window(self) -> None:
        """Before the model's step: the levels' losses, and the selector's update where it uses the losses at θ_k."""
        window = self._window
        sums = window.sums
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums.to(self.accelerator.device), "sum").cpu()
        pool, weighted, tokens, validation, validation_items, objective = sums.tolist()
        if not math.isfinite(validation):
            raise ValueError(
                f"the validation loss is {validation} at step {self.state.global_step + 1}; no weight can be learned from "
                "it: look for a learning rate that is too high, or for a bad row in `validation_dataset`"
            )
        metrics = {
            "lower_loss": pool / max(tokens, 1),
            "weighted_lower_loss": weighted / max(tokens, 1),
            "upper_loss": validation / max(validation_items, 1),
            "rho": window.rho,
        }
        if math.isfinite(window.gamma):
            metrics["gamma"] = window.gamma
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)
        if self._sees_losses_of_training:
            self._update_selector()  # names the row of a loss that is not finite
        if not math.isfinite(objective):
            if self.args.selector_loss_at == "updated":
                for batch in window.batches:
                    self._add_losses_without_gradient(batch, self._row_losses)
                self._row_losses.collect(learn_baseline=False, check=self._check_row_losses)
            causes = "a learning rate that is too high, or a bad row in `train_dataset`"
            if self._online is not None and self.args.importance_sampling_cap is None:
                causes = (
                    "importance ratios that explode: set `importance_sampling_cap`, or lower `generation_interval`"
                )
            raise ValueError(
                f"the loss is {objective} at step {self.state.global_step + 1} (mean weighted loss of the pool: "
                f"{weighted / max(tokens, 1)}); the model cannot learn from it: look for {causes}"
            )

    def _after_step(self) -> None:
        if self.args.selector_loss_at == "updated":
            self._update_selector_by_extra_forward()
        self._window.batches = []

    def _end_epoch(self) -> None:
        self._save_epoch_weights()
        confidence = self.measure_confidence()
        if confidence is not None:
            self._metrics["train"]["selector/trusted_auc"].append(confidence.auc)
            self._metrics["train"]["selector/trusted_share"].append(confidence.trusted_share)

    def _end_training(self) -> None:
        if self.weight_confidence is not None and self.weight_confidence.is_near_chance:
            logger.warning(
                f"{self.weight_confidence.verdict()} Compare with `selector='uniform'` before you use them "
                '(docs/selector.md, "How far to trust them").'
            )
        if self._online is not None:
            self._online.write()

    # Results

    def example_weights(self) -> Dataset:
        """Weight of each training row.

        Returns:
            [`~datasets.Dataset`]: one row per original training row in its order: `index`, `weight` (mean one, times the
            fixed weight where there is one), `score` (the logit), `text` (the row's first words) and, where known,
            `source` and `category`. For streaming data one row per row number, or per source, without `text`.

        Raises:
            ValueError: if this trainer has no weights.
        """
        if self.selector is not None:
            weights = self.selector.weights()
            if self.args.weight_scale == "simplex":
                weights = weights * self.pool.num_examples
            return self.pool.table(weights, self.selector.logits())
        if self.pool is None or isinstance(self.pool, StreamedPool):
            raise ValueError("this trainer has no example weights: give it a `validation_dataset`")
        weights = torch.ones(self.pool.num_examples)
        return self.pool.table(weights, torch.zeros(self.pool.num_examples))

    def export_selected(self, dataset: Dataset, top_fraction: float = 1.0) -> Dataset:
        """The rows of largest weight, ready for another SFT run.

        Args:
            dataset ([`~datasets.Dataset`]): The training data as it was given to the trainer, or other columns of the
                same rows.
            top_fraction (`float`, *optional*, defaults to `1.0`): Share of the rows to keep, at least one. Rows of
                weight 0 are never kept.

        Returns:
            [`~datasets.Dataset`]: the kept rows in their order with their weights, of mean one, in the column that
            `args.weight_column` names (`weight` if it is `None`), in place of what was in it.

        Raises:
            ValueError: for another number of rows, a `top_fraction` outside of (0, 1], or one below 1 where all weights
                are equal.
            TypeError: if `dataset` is not a [`~datasets.Dataset`].
        """
        weights = self.example_weights()["weight"][:]
        return select_top_rows(dataset, weights, top_fraction, self.args.weight_column or DEFAULT_WEIGHT_COLUMN)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if self.selector is not None and self.model.training:
            for name, value in self._selector_metrics().items():
                self._metrics["train"][name] = [value]
        super().log(logs, start_time)

    def _selector_metrics(self) -> dict[str, float]:
        metrics = {
            "selector/n_eff": self.selector.effective_sample_size(),
            "selector/entropy": self.selector.entropy(),
            "selector/max_weight": self.selector.largest_weight(),
            "selector/share_seen": self.selector.share_seen(),
        }
        if self.pool.labels is not None:
            auc = weights_auc(self.selector.logits().numpy(), self.pool.labels)
            if auc is not None:
                metrics["selector/auc"] = auc
        coverage = self._coverage()
        if coverage is not None:
            metrics["selector/coverage"] = coverage
        return metrics

    def _coverage(self) -> float | None:
        """Share of the pool's answer tokens in the rows of largest weight; `None` where tokens are not at hand."""
        if not isinstance(self.train_dataset, Dataset) or "labels" not in self.train_dataset.column_names:
            return None
        if self._answer_tokens is None:
            self._answer_tokens = AnswerTokens(self.train_dataset, seed=self.args.seed)
        return self._answer_tokens.coverage(self.selector)

    # Files

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.selector is not None and self.args.should_save:
            folder = Path(self.args.output_dir if output_dir is None else output_dir)
            self.selector.save_pretrained(folder)
            self.example_weights().to_parquet(folder / EXAMPLE_WEIGHTS_NAME)
            if self.weight_confidence is not None:
                text = json.dumps(self.weight_confidence.to_dict(), indent=2)
                (folder / CONFIDENCE_NAME).write_text(text + "\n")
            if _internal_call and output_dir is None:  # for a push: the pickled arguments stay here
                put_pickled_arguments_aside(folder)

    def push_to_hub(self, *args, **kwargs):
        """As [`~trl.SFTTrainer.push_to_hub`]; with learned weights `training_args.bin` is not uploaded."""

        if self.selector is None:
            return super().push_to_hub(*args, **kwargs)
        parent = super()
        return push_without_pickled_arguments(self, lambda: parent.push_to_hub(*args, **kwargs))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.selector is None:
            super()._push_from_checkpoint(checkpoint_folder)
        else:
            push_checkpoint(self, checkpoint_folder)

    def _save_epoch_weights(self) -> None:
        if self.is_world_process_zero():
            path = Path(self.args.output_dir, "example_weights", f"epoch-{math.ceil(self.state.epoch or 0)}.parquet")
            path.parent.mkdir(parents=True, exist_ok=True)
            self.example_weights().to_parquet(path)

    def why_incomplete(self, checkpoint: Path) -> str | None:
        """Reason why this trainer, with learned weights, cannot resume from a folder that was not written to its end;
        `None` if it can.
        """
        engines = {"deepspeed": self.is_deepspeed_enabled, "fsdp": self.is_fsdp_enabled}
        return incomplete(checkpoint, self.args, (STATE_NAME, WEIGHTS_NAME, CONFIG_NAME), **engines)

    def _save_checkpoint(self, model, trial):
        if self.selector is not None and self.args.should_save:
            folder = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            begin_checkpoint(folder, run_settings(self.args, FREE_ON_RESUME))
        super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.selector is not None and self.args.should_save:
            save_file(self._bilevel_state(), Path(output_dir, STATE_NAME))

    def _bilevel_state(self) -> dict[str, torch.Tensor]:
        state = self._validation.state()
        if self.token_baseline is not None:
            state |= {f"token_baseline.{name}": value for name, value in self.token_baseline.state_dict().items()}
        if self._online is not None:
            state |= self._online.state()
        return state

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint, STATE_NAME)
        if self.selector is None:
            if path.is_file():
                raise ValueError(
                    f"{checkpoint} was written with learned weights, and this trainer has no `validation_dataset`; give "
                    "it one to continue, or start a new run with the checkpoint as `model`"
                )
            return
        self.selector.resume_from(checkpoint)
        state = load_file(path)
        self._load_bilevel_state(state)

    def _load_bilevel_state(self, state: dict[str, torch.Tensor]) -> None:
        if self.token_baseline is not None:
            prefix = "token_baseline."
            self.token_baseline.load_state_dict(
                {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
            )
        self._validation.load_state(state)
        if self._online is not None:
            self._online.load_state(state)

    def create_model_card(self, model_name=None, dataset_name=None, tags=None):
        super().create_model_card(model_name=model_name, dataset_name=dataset_name, tags=tags)
        path = Path(self.args.output_dir, "README.md")
        if self.selector is not None and self.is_world_process_zero():
            section = card_section(
                self.selector, len(self._validation.dataset), self.state.log_history, self.weight_confidence
            )
            path.write_text(path.read_text(encoding="utf-8") + section, encoding="utf-8")
