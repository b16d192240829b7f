"""DPOTrainer with weights of preference pairs learned from a validation set.

A step goes as that of [`~boost_trl.BilevelSFTSelfRefineTrainer`] does, by the same parts (`row_weights/`); what is of pairs is in
`dpo/`. The reference's log-probabilities are computed once, before training, and travel with the rows, so that a pair's loss is
known wherever it is asked for: to weigh it, to show it to the selector, to score the pool, and on the validation set.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from transformers import (
    BitsAndBytesConfig,
    DataCollator,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    TrainerCallback,
)
from transformers.trainer_utils import EvalPrediction
from trl import DPOConfig, DPOTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from boost_trl.hub_names import resolve_model_name
from boost_trl.models.deepspeed_device import tell_deepspeed_the_device
from boost_trl.models.model_fingerprint import model_fingerprint
from boost_trl.selection import Selector
from boost_trl.trainer.bilevel_dpo_config import FREE_ON_RESUME, complete_arguments
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.dpo.answers import AnswerValidationLoss, prepare_answers
from boost_trl.trainer.dpo.checks import check_before_preparation, check_engine
from boost_trl.trainer.dpo.pairs import (
    PairPoolLosses,
    PairSelectorStep,
    PairValidationLoss,
    losses_of_pairs,
    model_inputs,
    shared_on_disk,
)
from boost_trl.trainer.row_weights.checks import check_parallelism, warn_of_what_is_not_used
from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID, with_ids
from boost_trl.trainer.row_weights.failed_preparation import prepare_or_name_row
from boost_trl.trainer.row_weights.forward import EvaluationForward
from boost_trl.trainer.row_weights.optimizer_batch import take_micro_batch
from boost_trl.trainer.row_weights.pool import Pool, leave_out_all_but
from boost_trl.trainer.row_weights.steps import BilevelSteps
from boost_trl.trainer.row_weights.validation import ValidationLoss


if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel


class BilevelDPOTrainer(BilevelSteps, DPOTrainer):
    """[`~trl.DPOTrainer`] that learns how much each preference pair should count, by watching a small trusted validation set.

    Without `validation_dataset`, and without `args.weight_column`, it trains exactly as [`~trl.DPOTrainer`] does. With a
    validation set, each step minimises the weighted loss of the batch's pairs times γ plus the loss of a validation batch,
    equation (40), and the weights follow the rule that `args.selector` names; see [`BilevelDPOConfig`].

    Example:

    ```python
    >>> from boost_trl import BilevelDPOTrainer
    >>> from datasets import load_dataset

    >>> trainer = BilevelDPOTrainer(
    ...     model="Qwen/Qwen2.5-0.5B-Instruct",
    ...     train_dataset=load_dataset("trl-lib/ultrafeedback_binarized", split="train"),
    ...     validation_dataset=load_dataset("json", data_files="trusted_pairs.jsonl", split="train"),
    ... )
    >>> trainer.train()
    >>> trainer.example_weights().sort("weight")[:10]
    ```

    Args:
        validation_dataset ([`~datasets.Dataset`], *optional*): Trusted pairs, or good answers alone with
            `args.validation_loss="sft"`. Training uses it; keep another set for evaluation.
        kwargs:
            All arguments of [`~trl.DPOTrainer`], in its order.

    Raises:
        ValueError: before training, for data or options that cannot be weighted; at a step, for a loss that is not
            finite.
    """

    pool: Pool | None = None
    _free_on_resume = FREE_ON_RESUME
    _sequences_per_row = 2
    _tag_names = ["boost_trl", "trl", "dpo", "bilevel-dpo"]
    _name = "Bilevel DPO"
    _paper = BilevelSFTSelfRefineTrainer._paper

    def __init__(
        self,
        model: "str | PreTrainedModel | PeftModel",
        ref_model: PreTrainedModel | None = None,
        args: DPOConfig | None = None,
        data_collator: DataCollator | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset
        | IterableDataset
        | DatasetDict
        | IterableDatasetDict
        | dict[str, Dataset | IterableDataset]
        | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        compute_metrics: Callable[[EvalPrediction], dict] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: "BitsAndBytesConfig | None" = None,
        peft_config: "PeftConfig | None" = None,
        *,
        validation_dataset: Dataset | None = None,
    ):
        given, args = complete_arguments(args, model)
        given_train_dataset, learned = train_dataset, validation_dataset is not None
        if train_dataset is not None and (learned or args.weight_column is not None):
            check_before_preparation(args, train_dataset, validation_dataset)
            self.pool = Pool(train_dataset, args)
            train_dataset = self.pool.identified()
            args.precompute_ref_log_probs = True
        self._set_up_selector(args, learned)
        tell_deepspeed_the_device()
        super().__init__(
            model=resolve_model_name(model, **(args.model_init_kwargs or {})) if isinstance(model, str) else model,
            ref_model=ref_model,
            args=given if self.pool is None else args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
        )
        warn_of_what_is_not_used(given_train_dataset, args, learned, self.pool is not None, "DPO")
        if self.pool is not None:
            check_engine(self.is_fsdp_enabled)
            check_parallelism(self.accelerator.parallelism_config, self._tp_size, self.padding_free, learned)
            numbers = np.sort(self.train_dataset.with_format("numpy", columns=[EXAMPLE_ID])[:][EXAMPLE_ID])
            self.train_dataset = leave_out_all_but(numbers, self.pool, self.train_dataset, self.args)
            if self.selector is not None:
                selector = self._selector_after_preparation(self.selector, self.pool)
                self._set_up_learning(selector, self.pool, with_ids(validation_dataset))

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        prepare = super()._prepare_dataset
        return prepare_or_name_row(
            lambda rows: prepare(rows, processing_class, args, dataset_name),
            dataset,
            lambda place: self._name_of_row(dataset, dataset_name, place),
        )

    def _precompute_ref_logps(self, dataset, name, batch_size):
        if self.pool is not None and self.accelerator.num_processes > 1 and not dataset.cache_files:
            dataset = shared_on_disk(dataset)
        return super()._precompute_ref_logps(dataset, name, batch_size)

    def _set_up_learning(self, selector: Selector, pool: Pool, validation_dataset: Dataset) -> None:
        args, accelerator = self.args, self.accelerator
        forward = EvaluationForward(
            lambda: self.model_wrapped, self.compute_loss_context_manager, self._prepare_inputs
        )
        vocab_size = self.model.config.get_text_config().vocab_size
        self._selector_step = PairSelectorStep(selector, pool, args, accelerator, forward, vocab_size)
        kind: type[ValidationLoss] = PairValidationLoss
        prepare: Callable[[Dataset, str], Dataset] = self._prepare_validation_pairs
        collator = self.data_collator
        if args.validation_loss == "sft":
            kind, prepare = AnswerValidationLoss, lambda rows, name: prepare_answers(rows, self._tokenizer, args)
            collator = DataCollatorForLanguageModeling(self._tokenizer.pad_token_id)
        self._validation = kind(
            validation_dataset,
            args=args,
            accelerator=accelerator,
            collator=collator,
            processing_class=self.processing_class,
            prepare=prepare,
            count_items=self._count_answer_tokens,
            forward=forward,
            vocab_size=vocab_size,
        )
        self._learn()

    def _prepare_validation_pairs(self, dataset: Dataset, name: str) -> Dataset:
        """Pairs as those of the pool, with the reference's log-probabilities and their numbers."""
        args = self.args
        dataset = self._prepare_dataset(dataset, self.processing_class, args, name)
        batch_size = args.precompute_ref_batch_size or args.per_device_train_batch_size
        return self._remove_unused_columns(self._precompute_ref_logps(dataset, name, batch_size), description=name)

    def _count_answer_tokens(self, batches: list[dict[str, Any]]) -> torch.Tensor:
        """Tokens that are learned in batches of answers of all processes."""
        count = sum((batch["labels"][:, 1:] != -100).sum() for batch in batches).to(self.accelerator.device)
        return self.accelerator.reduce(count, "sum") if self.accelerator.num_processes > 1 else count

    # One optimizer batch

    def _validation_items(self, validation: list[dict[str, Any]], num_items_in_batch: torch.Tensor | int | None):
        # Their mean: Trainer averages over micro-batches, and DDP over processes.
        count = self._validation.num_items(validation, scaled=True)
        return count / (len(validation) * self.accelerator.num_processes)

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
        losses, weights = losses_of_pairs(captured[0].log_probs, inputs, self.args), micro_batch.weights.flatten()
        plan = None if micro_batch.validation is None else self._optimizer_batch  # `None`: fixed weights only
        coefficient = 1.0 if plan is None else plan.pool_coefficient
        # From TRL's loss, in which every pair counts one, to the weighted one; exactly 0 where all weights are one.
        loss = loss + ((coefficient * weights - 1) * losses).mean()
        if plan is not None:
            plan.add_pool(losses.detach(), weights)
            if self._selector_step.sees_losses_of_training:
                self._selector_step.observe(micro_batch, captured[0], inputs)
            upper, count = self._validation.loss_sum(model, self._prepare_inputs(micro_batch.validation))
            plan.add_validation(upper.detach(), count)
            loss = loss + plan.validation_coefficient * upper / plan.validation_items
            plan.add_objective(loss.detach())
        return (loss, outputs) if return_outputs else loss

    # Scores of validated selection

    def _is_like_pool(self, validation: ValidationLoss) -> bool:
        return self.args.validation_loss == "dpo"

    def _losses_of_pool(self, mean_losses: Callable) -> PairPoolLosses:
        def losses(inputs: dict[str, Any]) -> torch.Tensor:
            inputs = self._prepare_inputs(inputs)
            with self.compute_loss_context_manager():
                outputs = self.model(**model_inputs(inputs), use_cache=False, fused_lm_head=True)
                return losses_of_pairs(outputs.log_probs, inputs, self.args)

        rows = self._remove_unused_columns(self.train_dataset)
        return PairPoolLosses(rows, False, self.collator_with_ids(), mean_losses, losses)

    def _made_with(self, validation: ValidationLoss) -> list:
        reference = None if self.ref_model is None else model_fingerprint(self.ref_model)
        return [*super()._made_with(validation), reference]
