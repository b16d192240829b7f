"""Steps of a training with learned weights: what is planned of an optimizer batch, and when the selector moves."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers.trainer_utils import TrainOutput, has_length

from boost_trl.selection import Selector
from boost_trl.trainer.common.base_model import record_under_adapter
from boost_trl.trainer.common.weight_logging import WeightLogging
from boost_trl.trainer.row_weights.callback import BilevelCallback
from boost_trl.trainer.row_weights.checks import explain_objective, warn_of_single_visit
from boost_trl.trainer.row_weights.config import RowWeightsConfig
from boost_trl.trainer.row_weights.drawn_rows import DrawnRows
from boost_trl.trainer.row_weights.example_ids import rows_per_pass
from boost_trl.trainer.row_weights.optimizer_batch import (
    MICRO_BATCH,
    MicroBatch,
    OptimizerBatch,
    mark_filling_rows,
    mark_repeated_rows,
    row_weights,
    take_numbered_micro_batch,
)
from boost_trl.trainer.row_weights.pool import Pool, StreamedPool
from boost_trl.trainer.row_weights.results import warn_of_chance
from boost_trl.trainer.row_weights.schedule import Schedule, make_schedule
from boost_trl.trainer.row_weights.validated_selection import check_trusted_rows
from boost_trl.trainer.row_weights.validation import ValidationLoss, num_input_tokens


if TYPE_CHECKING:
    import optuna


class BilevelSteps(DrawnRows):
    """Part of a TRL trainer that learns weights step by step. The trainer sets `pool` and `selector` before it calls `__init__`,
    after it `_validation` and `_selector_step` where `selector` is not `None`, then calls [`_learn`]. Its `compute_loss` weights
    the rows of a micro-batch and adds the validation loss, both by what is planned here.
    """

    _validation: ValidationLoss
    _schedule: Schedule
    _optimizer_batch: OptimizerBatch

    def _set_up_selector(self, args: RowWeightsConfig, learned: bool) -> None:
        self.selector = None
        if self.pool is not None and learned:
            self.selector = args.make_selector(self.pool.num_examples, self.pool.fingerprint)
        if self.selector is None or not self.selector.is_learned:
            # The model card must not claim what was not done.
            plain = next(kind for kind in type(self).__mro__ if kind.__module__.startswith("trl."))
            for name in ("_tag_names", "_name", "_paper"):
                setattr(self, name, getattr(plain, name))

    def _selector_after_preparation(self, selector: Selector, pool: Pool | StreamedPool) -> Selector:
        """`selector`, or a new one where preparation has left rows out."""
        if pool.num_examples != selector.num_examples:
            selector = self.selector = self.args.make_selector(pool.num_examples, selector.dataset_fingerprint)
        return selector

    def _learn(self) -> None:
        """Be told of the moments of training from now on."""
        self._base_model = record_under_adapter(self.model)
        self.num_validation_rows = len(self._validation.dataset)
        if self._selector_step.selector.is_fixed:
            check_trusted_rows(self._validation.dataset)
        moments = {
            name: getattr(self, f"_{name}")
            for name in ("begin_training", "begin_epoch", "before_step", "after_step", "end_epoch", "end_training")
        }
        self.add_callback(BilevelCallback(**moments))
        if self.args.log_weights:
            self.add_callback(WeightLogging(self))

    def _learned_parts(self):
        return [*super()._learned_parts(), self._validation, self._selector_step]

    # One optimizer batch

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, torch.Tensor | int | None]:
        if self.selector is not None and self.control.should_training_stop:  # a finished run
            return [], None
        batches, num_items_in_batch = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.pool is None:
            return batches, num_items_in_batch
        for batch in batches:
            batch[MICRO_BATCH] = take_numbered_micro_batch(batch)
        if self.selector is not None and batches:
            num_items_in_batch = self._plan(batches, num_items_in_batch)
        for batch in batches:
            weights = row_weights(batch[MICRO_BATCH].ids, self.pool, None if self.draws_rows else self.selector)
            batch[MICRO_BATCH].weights = self._token_weights(batch, weights, num_items_in_batch)
        return batches, num_items_in_batch

    def _plan(self, batches: list[dict[str, Any]], num_items_in_batch: torch.Tensor | int | None):
        """All of an optimizer batch but its weights, which the selector may still change; what its loss is divided by."""
        step, selector_step = self.state.global_step, self._selector_step
        micro_batches = [batch[MICRO_BATCH] for batch in batches]
        self._mark_rows_that_do_not_count(micro_batches)
        selector_step.count_rows(micro_batches)
        num_items_in_batch = self._replace_rows(batches, num_items_in_batch)
        plan = OptimizerBatch.at(self._schedule.epoch(self.state), self._schedule, batches)
        self._optimizer_batch = plan
        if self.args.selector == "bmo_exact" and step % self.args.bmo_refresh_steps == 0:
            pool = self._remove_unused_columns(self.train_dataset)
            selector_step.refresh(pool, self.collator_with_ids(), self._train_batch_size, step)
        if selector_step.selector.updates_before_weights:
            selector_step.update_by_extra_forward(batches, plan.gamma, step)
        validation = self._validation.take(len(batches))
        plan.validation_items = self._validation_items(validation, num_items_in_batch)
        # TRL's count, which has only its own batches.
        tokens = torch.tensor(sum(map(num_input_tokens, validation)), device=self.accelerator.device)
        self._total_train_tokens += int(self.accelerator.gather(tokens).sum())
        for batch, validation_batch in zip(batches, validation):
            batch[MICRO_BATCH].validation = validation_batch
        return num_items_in_batch

    def _replace_rows(self, batches: list[dict[str, Any]], num_items_in_batch: torch.Tensor | int | None):
        """Put other rows in the place of those drawn; what the loss is divided by then."""
        return num_items_in_batch

    def _token_weights(
        self, batch: dict[str, Any], weights: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """Weights of a planned micro-batch, see [`MicroBatch`], made of those of its rows."""
        return weights

    def _validation_items(self, validation: list[dict[str, Any]], num_items_in_batch: torch.Tensor | int | None):
        """Divisor of the validation loss; `None`: each batch's own."""
        return self._validation.num_items(validation, scaled=num_items_in_batch is not None)

    def _mark_rows_that_do_not_count(self, micro_batches: list[MicroBatch]) -> None:
        if isinstance(self.pool, StreamedPool):
            if self.pool.has_unique_ids and not self.args.packing:
                mark_repeated_rows(micro_batches, self.accelerator, self.pool)
            return
        is_last = self.accelerator.num_processes > 1 and self.accelerator.gradient_state.end_of_dataloader
        if is_last and not self.args.dataloader_drop_last:
            mark_filling_rows(micro_batches[-1], self.accelerator, self._train_batch_size, self._rows_per_pass)

    def _before_step(self) -> None:
        """Before the model's step: the levels' losses, and the selector's update where it uses the losses at θ_k."""
        plan, step, selector_step = self._optimizer_batch, self.state.global_step, self._selector_step
        metrics, objective = plan.totals(self.accelerator)
        if not math.isfinite(metrics["upper_loss"]):
            raise ValueError(self._validation.explain(metrics["upper_loss"], plan.batches, step))
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)
        if selector_step.sees_losses_of_training:
            selector_step.update(plan.gamma, step)  # names the row of a loss that is not finite
        if not math.isfinite(objective):
            if self.args.selector_loss_at == "updated" or selector_step.selector.is_fixed:
                selector_step.check_rows(plan.batches, step)
            causes = self._causes_of_divergence()
            raise ValueError(explain_objective(objective, metrics["weighted_lower_loss"], step, causes))

    def _causes_of_divergence(self) -> str:
        return "a learning rate that is too high, or a bad row in `train_dataset`"

    def _after_step(self) -> None:
        plan, selector_step = self._optimizer_batch, self._selector_step
        if self.args.selector_loss_at == "updated" and not selector_step.selector.is_fixed:
            selector_step.update_by_extra_forward(plan.batches, plan.gamma, self.state.global_step)
        plan.batches = []

    # Training

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: "optuna.Trial | dict[str, Any] | None" = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """As [`~transformers.Trainer.train`]. Called again, it goes on with the weights that it has learned."""
        if self.selector is not None:
            self._state_at_start = None
            resume_from_checkpoint = self._checkpoint_to_resume(resume_from_checkpoint)
            if resume_from_checkpoint is None:
                self.score_pool(self._validation, self._selector_step)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _begin_training(self, train_dataloader: DataLoader) -> None:
        """Fix the schedules, which need to know how long training lasts."""
        if has_length(train_dataloader):
            self._rows_per_pass = rows_per_pass(train_dataloader)
        args, max_steps, batch_size = self.args, self.state.max_steps, self._train_batch_size
        selector, pool = self._selector_step.selector, self._selector_step.pool
        rows_per_batch = batch_size * self.accelerator.num_processes
        self._schedule = make_schedule(
            args, train_dataloader, max_steps, args.gradient_accumulation_steps, rows_per_batch
        )
        steps_per_epoch = self._schedule.steps_per_epoch
        if steps_per_epoch is None:
            steps_per_epoch = pool.num_examples / self.get_total_train_batch_size(args)
        else:
            warn_of_single_visit(selector, self._schedule.num_epochs)
        selector.set_schedule(max_steps, steps_per_epoch)
        self._validation.begin(batch_size)
        if args.auto_find_batch_size:
            self._forget_failed_attempt()
        self._starts_inside_epoch = self.state.global_step > 0

    def _begin_epoch(self) -> None:
        if isinstance(self.pool, StreamedPool) and self.pool.has_unique_ids:
            self.pool.begin_pass(from_start=not self._starts_inside_epoch)
        self._starts_inside_epoch = False
        self.begin_epoch_of_draws(self._selector_step)

    def _end_epoch(self) -> None:
        self._save_epoch_weights()
        confidence = self.measure_confidence()
        if confidence is not None:
            self._metrics["train"]["selector/trusted_auc"].append(confidence.auc)
            self._metrics["train"]["selector/trusted_share"].append(confidence.trusted_share)

    def _end_training(self) -> None:
        if not self._selector_step.selector.is_fixed:
            warn_of_chance(self.weight_confidence)
