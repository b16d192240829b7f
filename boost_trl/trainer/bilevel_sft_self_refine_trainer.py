"""SFTTrainer with example weights learned from a validation set.

How a step goes (all files are of `row_weights/`, but for `sft/refine.py`). The pool (`pool.py`) has numbered the training rows, and
the numbers travel through TRL's preparation (`example_ids.py`) into every batch. `get_batch_samples` (`steps.py`) plans the whole
optimizer batch: ρ and γ of the moment (`schedule.py`), the model's own answers in the place of masked rows (`sft/refine.py`), the
next validation rows (`validation.py`), and then what each token counts: its row's weight, looked up once. All of it hangs on the
micro-batches as one object (`optimizer_batch.py`). `compute_loss` lets TRL compute its loss, turns it into the weighted one
(`losses.py`), adds the validation loss, and shows the rows' losses to the selector. When the gradients are there, and before the
model moves, the selector moves (`selector_step.py`, `boost_trl/selection`): its weights are those of the next batch. What is then
told of the weights is in `results.py`.
"""

from collections.abc import Callable
from functools import partial
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
from transformers.trainer_utils import EvalPrediction, TrainOutput
from trl import SFTConfig

from boost_trl.hub_names import resolve_model_name
from boost_trl.models.deepspeed_device import tell_deepspeed_the_device
from boost_trl.selection import Selector
from boost_trl.trainer.bilevel_sft_self_refine_config import FREE_ON_RESUME, complete_arguments
from boost_trl.trainer.common.trackers import log_table
from boost_trl.trainer.row_weights.checks import check_parallelism, warn_of_what_is_not_used
from boost_trl.trainer.row_weights.example_ids import with_ids
from boost_trl.trainer.row_weights.forward import EvaluationForward
from boost_trl.trainer.row_weights.losses import token_losses, weighting
from boost_trl.trainer.row_weights.optimizer_batch import take_micro_batch
from boost_trl.trainer.row_weights.pool import Pool, StreamedPool, leave_out_empty_rows, make_pool
from boost_trl.trainer.row_weights.prepared_rows import check_tokens_are_known
from boost_trl.trainer.row_weights.results import AnswerTokens, numbered, trusted_rows, warn_of_trained_rows
from boost_trl.trainer.row_weights.selector_step import SelectorStep
from boost_trl.trainer.row_weights.steps import BilevelSteps
from boost_trl.trainer.row_weights.validation import make_validation_loss
from boost_trl.trainer.sft.checks import check_before_preparation, check_datasets, check_loss_can_be_weighted
from boost_trl.trainer.sft.generation import AnswerGenerator, VLLMAnswers
from boost_trl.trainer.sft.preparation import NumberedRowsTrainer
from boost_trl.trainer.sft.refine import SelfRefinement


if TYPE_CHECKING:
    import optuna
    from peft import PeftConfig, PeftModel


class BilevelSFTSelfRefineTrainer(BilevelSteps, NumberedRowsTrainer):
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

    _free_on_resume = FREE_ON_RESUME
    _refinement: SelfRefinement | None = None
    _tag_names = ["boost_trl", "trl", "sft", "bilevel-sft-self-refine"]
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
        warn_of_what_is_not_used(
            given_train_dataset, args, self.selector is not None, self.pool is not None, "supervised fine-tuning"
        )
        if self.pool is not None:
            check_parallelism(self.accelerator.parallelism_config, self.get_tp_size(), self.padding_free, learned)
            self.train_dataset = leave_out_empty_rows(self.pool, self.train_dataset, self.args)
            if self.selector is not None:
                selector = self._selector_after_preparation(self.selector, self.pool)
                self._set_up_learning(selector, self.pool, with_ids(validation_dataset), validation_loss, eval_dataset)

    def _set_up_learning(
        self,
        selector: Selector,
        pool: Pool | StreamedPool,
        validation_dataset: Dataset,
        validation_loss: str | Callable,
        eval_dataset,
    ) -> None:
        args, accelerator = self.args, self.accelerator
        forward = EvaluationForward(
            lambda: self.model_wrapped, self.compute_loss_context_manager, self._prepare_inputs
        )
        vocab_size = self.model.config.get_text_config().vocab_size
        check_tokens_are_known(self.train_dataset, vocab_size, pool.name_of)
        self._selector_step = SelectorStep(selector, pool, args, accelerator, forward, vocab_size)
        has_labels = isinstance(self.train_dataset, Dataset) and "labels" in self.train_dataset.column_names
        if selector.is_learned and not selector.is_fixed and has_labels and args.confidence_share > 0:
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
        self._refinement = self._set_up_refinement(selector, pool, forward) if args.online_ratio > 0 else None
        # Read once; `None` where tokens are not at hand, as with images and streams.
        self._answer_tokens = AnswerTokens(self.train_dataset, seed=args.seed) if has_labels else None
        self._learn()

    def _set_up_refinement(
        self, selector: Selector, pool: Pool | StreamedPool, forward: EvaluationForward
    ) -> SelfRefinement:
        assert isinstance(pool, Pool), "streams are refused before"
        args, accelerator, tokenizer = self.args, self.accelerator, self._tokenizer
        vllm = VLLMAnswers(self.model, args, accelerator, tokenizer, self.processing_class) if args.use_vllm else None
        return SelfRefinement(
            self._remove_unused_columns(self.train_dataset),
            pool,
            selector,
            args,
            accelerator,
            AnswerGenerator(self.model, args, accelerator, tokenizer, forward, vllm),
            forward,
            log=lambda name, value: self._metrics["train"][name].append(value),
            log_table=partial(log_table, self, "completions"),
        )

    def _learned_parts(self):
        return [*super()._learned_parts(), *([] if self._refinement is None else [self._refinement])]

    # One optimizer batch

    def _replace_rows(self, batches: list[dict[str, Any]], num_items_in_batch: torch.Tensor | int | None):
        if self._refinement is None:
            return num_items_in_batch
        self._refinement.refine(batches, self.state.global_step)
        if num_items_in_batch is not None:
            num_items_in_batch = self._refinement.count_items(batches)
            if self.args.average_tokens_across_devices and self.accelerator.num_processes > 1:
                num_items_in_batch = self.accelerator.reduce(num_items_in_batch, "sum")
        return num_items_in_batch

    def _token_weights(
        self, batch: dict[str, Any], weights: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        if self._refinement is None:
            return weights
        return self._refinement.token_weights(batch, weights, num_items_in_batch)

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
            self._selector_step.observe(micro_batch, fused, inputs)
        upper, count = self._validation.loss_sum(model, self._prepare_inputs(micro_batch.validation))
        plan.add_validation(upper.detach(), count)
        items = count if plan.validation_items is None else plan.validation_items
        loss = loss + scale * plan.validation_coefficient * upper / torch.as_tensor(items).clamp(min=1)
        plan.add_objective(loss.detach())
        return (loss, outputs) if return_outputs else loss

    def _causes_of_divergence(self) -> str:
        if self.args.online_ratio > 0 and self.args.importance_sampling_cap is None:
            return "importance ratios that explode: set `importance_sampling_cap`, or lower `generation_interval`"
        return super()._causes_of_divergence()

    # Training

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: "optuna.Trial | dict[str, Any] | None" = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        if self._refinement is not None:
            self._refinement.forget()
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _begin_training(self, train_dataloader: DataLoader) -> None:
        if self._refinement is not None:
            batch_size, max_steps = self._train_batch_size, self.state.max_steps
            self._refinement.begin_training(train_dataloader, self.collator_with_ids(), batch_size, max_steps)
        super()._begin_training(train_dataloader)

    def _end_epoch(self) -> None:
        super()._end_epoch()
        # Trackers take nothing any more when training has ended.
        if self._refinement is not None and self.control.should_training_stop:
            self._refinement.write()
