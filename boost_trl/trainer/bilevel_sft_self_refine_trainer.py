"""SFTTrainer with example weights learned from a validation set.

How a step goes. The pool (`sft/pool.py`) has numbered the training rows, and the numbers travel through TRL's preparation
(`sft/example_ids.py`) into every batch. `get_batch_samples` plans the whole optimizer batch: ρ and γ of the moment
(`sft/schedule.py`), the model's own answers in the place of masked rows (`sft/refine.py`), the next validation rows
(`sft/validation.py`), and then what each token counts: its row's weight, looked up once. All of it hangs on the micro-batches
as one object (`sft/optimizer_batch.py`). `compute_loss` lets TRL compute its loss, turns it into the weighted one
(`sft/losses.py`), adds the validation loss, and shows the rows' losses to the selector. When the gradients are there, and before
the model moves, the selector moves (`sft/selector_step.py`, `boost_trl/selection`): its weights are those of the next batch.
What is then told of the weights is in `sft/results.py`.
"""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from torch.utils.data import DataLoader
from transformers import (
    BitsAndBytesConfig,
    DataCollator,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import EvalPrediction, TrainOutput, has_length
from trl import SFTConfig, SFTTrainer

from boost_trl.hub_names import resolve_model_name
from boost_trl.models.deepspeed_device import tell_deepspeed_the_device
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig, complete_arguments
from boost_trl.trainer.common.base_model import record_under_adapter
from boost_trl.trainer.sft.callback import BilevelCallback
from boost_trl.trainer.sft.checks import (
    check_before_preparation,
    check_datasets,
    check_loss_can_be_weighted,
    check_parallelism,
    explain_objective,
    warn_of_single_visit,
    warn_of_what_is_not_used,
)
from boost_trl.trainer.sft.drawn_rows import DrawnRowsTrainer
from boost_trl.trainer.sft.example_ids import rows_per_pass, with_ids
from boost_trl.trainer.sft.forward import EvaluationForward
from boost_trl.trainer.sft.generation import AnswerGenerator, VLLMAnswers
from boost_trl.trainer.sft.losses import token_losses, weighting
from boost_trl.trainer.sft.optimizer_batch import (
    MICRO_BATCH,
    MicroBatch,
    OptimizerBatch,
    mark_filling_rows,
    mark_repeated_rows,
    row_weights,
    take_micro_batch,
)
from boost_trl.trainer.sft.pool import StreamedPool, leave_out_empty_rows, make_pool
from boost_trl.trainer.sft.prepared_rows import check_tokens_are_known
from boost_trl.trainer.sft.refine import SelfRefinement
from boost_trl.trainer.sft.results import (
    AnswerTokens,
    numbered,
    trusted_rows,
    warn_of_chance,
    warn_of_trained_rows,
)
from boost_trl.trainer.sft.schedule import Schedule, make_schedule
from boost_trl.trainer.sft.selector_step import SelectorStep
from boost_trl.trainer.sft.validated_selection import check_trusted_rows
from boost_trl.trainer.sft.validation import make_validation_loss, num_input_tokens


if TYPE_CHECKING:
    import optuna
    from peft import PeftConfig, PeftModel


class BilevelSFTSelfRefineTrainer(DrawnRowsTrainer):
    """[`~trl.SFTTrainer`] that learns how much each training example should count, by watching a small trusted validation
    set.

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
        given, args, validation_loss = complete_arguments(args, model)
        learned = validation_dataset is not None
        given_train_dataset = train_dataset
        check_before_preparation(args, validation_loss, train_dataset, validation_dataset, formatting_func)
        self.pool = make_pool(train_dataset, args, learned)
        left_out = None if self.pool is None else self.pool.left_out
        check_datasets(train_dataset, eval_dataset, args, formatting_func, left_out)
        if self.pool is not None:
            check_loss_can_be_weighted(args, compute_loss_func)
            train_dataset = self.pool.identified()
        self._set_up_selector(args, learned)
        tell_deepspeed_the_device()
        super().__init__(
            model=resolve_model_name(model, **(args.model_init_kwargs or {})) if isinstance(model, str) else model,
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
        warn_of_what_is_not_used(given_train_dataset, args, self.selector is not None, weighted=self.pool is not None)
        if self.pool is not None:
            check_parallelism(self.accelerator.parallelism_config, self.get_tp_size(), self.padding_free, learned)
            self.train_dataset = leave_out_empty_rows(self.pool, self.train_dataset, self.args)
        if self.selector is not None:
            self._set_up_learning(with_ids(validation_dataset), validation_loss, eval_dataset)

    def _set_up_selector(self, args: BilevelSFTSelfRefineConfig, learned: bool) -> None:
        self.selector = None
        if self.pool is not None and learned:
            self.selector = args.make_selector(self.pool.num_examples, self.pool.fingerprint)
        if self.selector is None or not self.selector.is_learned:
            # The model card must not claim what was not done.
            self._tag_names, self._name, self._paper = SFTTrainer._tag_names, SFTTrainer._name, SFTTrainer._paper

    def _set_up_learning(self, validation_dataset: Dataset, validation_loss: str | Callable, eval_dataset) -> None:
        args, accelerator = self.args, self.accelerator
        if self.pool.num_examples != self.selector.num_examples:  # preparation has left rows out
            self.selector = args.make_selector(self.pool.num_examples, self.selector.dataset_fingerprint)
        self._base_model = record_under_adapter(self.model)
        forward = EvaluationForward(
            lambda: self.model_wrapped, self.compute_loss_context_manager, self._prepare_inputs
        )
        vocab_size = self.model.config.get_text_config().vocab_size
        check_tokens_are_known(self.train_dataset, vocab_size, self.pool.name_of)
        self._selector_step = SelectorStep(self.selector, self.pool, args, accelerator, forward, vocab_size)
        self._trusted = None
        has_labels = isinstance(self.train_dataset, Dataset) and "labels" in self.train_dataset.column_names
        if self.selector.is_learned and not self.selector.is_fixed and has_labels and args.confidence_share > 0:
            validation_dataset, trusted = trusted_rows(
                validation_dataset, eval_dataset, args, may_keep_aside=validation_loss != "dpo"
            )
            if trusted is not None:
                self._trusted = numbered(self.prepare_like_evaluation(trusted, "trusted"))
        self._validation = make_validation_loss(
            validation_loss,
            validation_dataset,
            args=args,
            accelerator=accelerator,
            collator=self.data_collator,
            processing_class=self.processing_class,
            prepare=self.prepare_like_evaluation,
            count_items=lambda batches: self._get_num_items_in_batch(batches, args.device),
            forward=forward,
            vocab_size=vocab_size,
        )
        if self._trusted is not None:
            warn_of_trained_rows(self._trusted, self.train_dataset, self._validation.dataset)
        self.num_validation_rows = len(self._validation.dataset)
        if self.selector.is_fixed:
            check_trusted_rows(self._validation.dataset)
        self._refinement = self._set_up_refinement(forward) if args.online_ratio > 0 else None
        self._optimizer_batch: OptimizerBatch | None = None
        # Read once; `None` where tokens are not at hand, as with images and streams.
        self._answer_tokens = AnswerTokens(self.train_dataset, seed=args.seed) if has_labels else None
        moments = {
            name: getattr(self, f"_{name}")
            for name in ("begin_training", "begin_epoch", "before_step", "after_step", "end_epoch", "end_training")
        }
        self.add_callback(BilevelCallback(**moments))

    def _set_up_refinement(self, forward: EvaluationForward) -> SelfRefinement:
        args, accelerator, tokenizer = self.args, self.accelerator, self._tokenizer
        vllm = VLLMAnswers(self.model, args, accelerator, tokenizer, self.processing_class) if args.use_vllm else None
        return SelfRefinement(
            self._remove_unused_columns(self.train_dataset),
            self.pool,
            self.selector,
            args,
            accelerator,
            AnswerGenerator(self.model, args, accelerator, tokenizer, forward, vllm),
            forward,
            log=lambda name, value: self._metrics["train"][name].append(value),
        )

    def _learned_parts(self):
        parts = (self._validation, self._selector_step, self._refinement)
        return [*super()._learned_parts(), *(part for part in parts if part is not None)]

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
            batch[MICRO_BATCH] = take_micro_batch(batch)
        if self.selector is not None and batches:
            num_items_in_batch = self._plan(batches, num_items_in_batch)
        for batch in batches:
            micro_batch = batch[MICRO_BATCH]
            micro_batch.weights = row_weights(micro_batch.ids, self.pool, None if self.draws_rows else self.selector)
            if micro_batch.answers is not None:
                micro_batch.weights = self._refinement.token_weights(batch, micro_batch.weights, num_items_in_batch)
        return batches, num_items_in_batch

    def _plan(self, batches: list[dict[str, Any]], num_items_in_batch: torch.Tensor | int | None):
        """All of an optimizer batch but its weights, which the selector may still change; what its loss is divided by."""
        step, selector_step = self.state.global_step, self._selector_step
        micro_batches = [batch[MICRO_BATCH] for batch in batches]
        self._mark_rows_that_do_not_count(micro_batches)
        selector_step.count_rows(micro_batches)
        if self._refinement is not None:
            self._refinement.refine(batches, step)
            if num_items_in_batch is not None:
                num_items_in_batch = self._refinement.count_items(batches)
                if self.args.average_tokens_across_devices and self.accelerator.num_processes > 1:
                    num_items_in_batch = self.accelerator.reduce(num_items_in_batch, "sum")
        plan = OptimizerBatch.at(self._schedule.epoch(self.state), self._schedule, batches)
        self._optimizer_batch = plan
        if self.args.selector == "bmo_exact" and step % self.args.bmo_refresh_steps == 0:
            pool = self._remove_unused_columns(self.train_dataset)
            selector_step.refresh(pool, self.collator_with_ids(), self._train_batch_size, step)
        if self.selector.updates_before_weights:
            selector_step.update_by_extra_forward(batches, plan.gamma, step)
        validation = self._validation.take(len(batches))
        plan.validation_items = self._validation.num_items(validation, scaled=num_items_in_batch is not None)
        # TRL's count, which has only its own batches.
        tokens = torch.tensor(sum(map(num_input_tokens, validation)), device=self.accelerator.device)
        self._total_train_tokens += int(self.accelerator.gather(tokens).sum())
        for batch, validation_batch in zip(batches, validation):
            batch[MICRO_BATCH].validation = validation_batch
        return num_items_in_batch

    def _mark_rows_that_do_not_count(self, micro_batches: list[MicroBatch]) -> None:
        if isinstance(self.pool, StreamedPool):
            if self.pool.has_unique_ids and not self.args.packing:
                mark_repeated_rows(micro_batches, self.accelerator, self.pool)
            return
        is_last = self.accelerator.num_processes > 1 and self.accelerator.gradient_state.end_of_dataloader
        if is_last and not self.args.dataloader_drop_last:
            mark_filling_rows(micro_batches[-1], self.accelerator, self._train_batch_size, self._rows_per_pass)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        micro_batch = take_micro_batch(inputs)
        if micro_batch is None or not self.model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

        captured = []

        def forward(*args, **kwargs):
            captured.append(model(*args, **kwargs))
            return captured[-1]

        result = super().compute_loss(forward, inputs, return_outputs, num_items_in_batch)
        loss, outputs = result if return_outputs else (result, None)
        fused = captured[0]
        kept, losses = fused.label_mask, token_losses(fused.log_probs, self.args.loss_type)
        scale = 1
        if self.args.average_tokens_across_devices and num_items_in_batch is not None:
            scale = self.accelerator.num_processes // self.get_tp_size()
        num_items = kept.sum() if num_items_in_batch is None else num_items_in_batch
        weights = micro_batch.of_predictions(micro_batch.weights, kept)
        if micro_batch.validation is None:  # fixed weights only
            loss = loss + weighting(losses, kept, weights, num_items, scale)
            return (loss, outputs) if return_outputs else loss

        plan = self._optimizer_batch
        loss = loss + weighting(losses, kept, plan.pool_coefficient * weights, num_items, scale)
        shares = None if micro_batch.shares is None else micro_batch.of_predictions(micro_batch.shares, kept)
        plan.add_pool(losses[kept].detach(), weights, shares)
        if self._selector_step.sees_losses_of_training:
            self._selector_step.observe(micro_batch, fused, inputs["labels"])
        upper, count = self._validation.loss_sum(model, self._prepare_inputs(micro_batch.validation))
        plan.add_validation(upper.detach(), count)
        items = count if plan.validation_items is None else plan.validation_items
        loss = loss + scale * plan.validation_coefficient * upper / torch.as_tensor(items).clamp(min=1)
        plan.add_objective(loss.detach())
        return (loss, outputs) if return_outputs else loss

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
            if self.args.selector_loss_at == "updated" or self.selector.is_fixed:
                selector_step.check_rows(plan.batches, step)
            raise ValueError(explain_objective(objective, metrics["weighted_lower_loss"], step, self.args))

    def _after_step(self) -> None:
        plan = self._optimizer_batch
        if self.args.selector_loss_at == "updated" and not self.selector.is_fixed:
            self._selector_step.update_by_extra_forward(plan.batches, plan.gamma, self.state.global_step)
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
            if self._refinement is not None:
                self._refinement.answers = None  # those of an earlier training were another model's
            resume_from_checkpoint = self._checkpoint_to_resume(resume_from_checkpoint)
            if resume_from_checkpoint is None:
                self.score_pool(self._validation, self._selector_step)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _begin_training(self, train_dataloader: DataLoader) -> None:
        """Fix the schedules, which need to know how long training lasts."""
        if has_length(train_dataloader):
            self._rows_per_pass = rows_per_pass(train_dataloader)
        args, max_steps, batch_size = self.args, self.state.max_steps, self._train_batch_size
        rows_per_batch = batch_size * self.accelerator.num_processes
        self._schedule: Schedule = make_schedule(
            args, train_dataloader, max_steps, args.gradient_accumulation_steps, rows_per_batch
        )
        steps_per_epoch = self._schedule.steps_per_epoch
        if steps_per_epoch is None:
            steps_per_epoch = self.pool.num_examples / self.get_total_train_batch_size(args)
        else:
            warn_of_single_visit(self.selector, self._schedule.num_epochs)
        self.selector.set_schedule(max_steps, steps_per_epoch)
        self._validation.begin(batch_size)
        if self._refinement is not None:
            self._refinement.begin_training(train_dataloader, self.collator_with_ids(), batch_size, max_steps)
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
        if not self.selector.is_fixed:
            warn_of_chance(self.weight_confidence)
        if self._refinement is not None:
            self._refinement.write()
