"""Rows drawn by weights that are set before training: `selector="validated"`."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.logging import get_logger
from datasets import Dataset
from torch import nn

from boost_trl.models.model_fingerprint import model_fingerprint, trained_fingerprint
from boost_trl.selection import WeightConfidence, round_agreement, validated_scores
from boost_trl.trainer.common.engines import without_zero3
from boost_trl.trainer.common.training_length import planned_updates
from boost_trl.trainer.common.weighted_sampler import WeightedSampler
from boost_trl.trainer.row_weights.checkpoint import LearnedWeights
from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID
from boost_trl.trainer.row_weights.prepared_rows import fingerprint
from boost_trl.trainer.row_weights.score_cache import cached_selection
from boost_trl.trainer.row_weights.scoring_losses import PoolLosses, TrustedLosses, by_length
from boost_trl.trainer.row_weights.selector_step import SelectorStep
from boost_trl.trainer.row_weights.trials import EQUAL_WEIGHTS
from boost_trl.trainer.row_weights.validated_selection import (
    ValidatedSelection,
    ValidatedSelectionResult,
    check_model_is_whole,
    tempered_logits,
)
from boost_trl.trainer.row_weights.validation import ValidationLoss


logger = get_logger(__name__)

REPORT_NAME = "validated_selection.json"
_LEAST_AGREEMENT = 0.7
# Scores that another version has kept are not taken: count up with every change of what they are.
_METHOD_VERSION = 6
_DECISIVE_SETTINGS = (
    *("selection_guard", "target_effective_fraction", "adaptation_learning_rate", "learning_rate"),
    *("rho_init", "validation_loss", "dpo_beta", "loss_type", "selection_loss", "beta", "label_smoothing"),
    *("packing", "padding_free", "max_length"),
    *("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "seed", "bf16", "fp16"),
    *("per_device_train_batch_size", "per_device_validation_batch_size"),
)


class ScoredPool:
    """State that a run which goes on needs to score its pool again."""

    def __init__(self):
        self.losses = torch.zeros(0, dtype=torch.float64)  # (N,) ℓ(θ₀)
        self.rounds = 0

    def state(self) -> dict[str, torch.Tensor]:
        return {"scored_losses": self.losses, "scored_rounds": torch.tensor(self.rounds)}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        self.losses, self.rounds = state["scored_losses"], int(state["scored_rounds"])


class DrawnRows(LearnedWeights):
    """Part of a TRL trainer that scores its pool before training and draws rows by the weights that follow. With other selectors every
    row comes once an epoch.

    Attributes:
        selection_report (`dict`, *optional*): how the weights came about; see
            [`~boost_trl.trainer.row_weights.validated_selection.ValidatedSelectionResult`].
        shows_scoring (`bool`, *optional*): whether a bar shows how far the scoring is; as Trainer's bars by default.
    """

    shows_scoring: bool | None = None
    selection_report: dict[str, Any] | None = None
    _sampler: WeightedSampler | None = None

    def __init__(self, *args, **kwargs):
        self._scored = ScoredPool()
        super().__init__(*args, **kwargs)

    def _learned_parts(self) -> list:
        return [self._scored] if self._selector_step.selector.is_fixed else []

    @property
    def draws_rows(self) -> bool:
        """Whether weights are in the draws. Packed rows cannot be drawn one by one: weights are in their losses."""
        return self.selector is not None and self.selector.is_fixed and not self.args.packing

    def _get_train_sampler(self, train_dataset=None):
        if not self.draws_rows:
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        numbers = dataset.with_format("numpy", columns=[EXAMPLE_ID])[:][EXAMPLE_ID]
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self._sampler = WeightedSampler(lambda: self.selector.weights(numbers).numpy(), len(numbers), seed)
        return self._sampler

    def score_pool(self, validation: ValidationLoss, selector_step: SelectorStep) -> None:
        """Set the weights, unless they are: a second training goes on with them."""
        args, selector = self.args, selector_step.selector
        if not selector.is_fixed or self._scored.rounds:
            return
        check_model_is_whole(self.model, self.accelerator)
        self.model.to(args.device)  # DeepSpeed moves it later
        is_main = self.is_world_process_zero()

        def select() -> ValidatedSelectionResult:
            pool, trusted = self._losses(validation, selector_step)
            show = is_main and (not args.disable_tqdm if self.shows_scoring is None else self.shows_scoring)
            batch_size = self.get_total_train_batch_size(args)
            selection = ValidatedSelection(
                self.model,
                args,
                pool,
                trusted,
                planned_updates(args, len(self.train_dataset)),
                batch_size,
                progress=show,
            )
            if is_main and not show:
                logger.warning(
                    f"Scoring the pool: up to {selection.budget.num_updates} updates before training begins."
                )
            with without_zero3(args):
                return selection.run()

        # A function of the user's has no fingerprint.
        is_named = args.validation_loss in ("sft", "dpo")
        result = cached_selection(self._made_with(validation), select, is_main) if is_named else select()
        selector.assign(result.logits)
        self._scored.losses, self._scored.rounds = torch.from_numpy(result.losses), 1
        self._take_report(result.report)
        if is_main:
            logger.warning(result.verdict())
            if result.report["agreement"]["is_near_chance"] and result.report["fraction"] != EQUAL_WEIGHTS:
                logger.warning(
                    "The two halves of the validation set hardly agree on the pool's rows (AUC "
                    f"{result.report['agreement']['auc']:.2f}, chance .5): give more trusted rows, or a model that can do what they "
                    "show; compare with `selector='uniform'` before you use the weights."
                )

    def begin_epoch_of_draws(self, selector_step: SelectorStep) -> None:
        """Tell the sampler which epoch begins. If this epoch is to have another round, score by the model as it is, and set the
        weights anew if what it has learned is more than the rows that it was trained on."""
        selector, report = selector_step.selector, self.selection_report
        if report is None:  # the weights of other selectors change with every step
            return
        epoch = math.floor((self.state.epoch or 0) + 1e-6)
        if self._sampler is not None:
            # accelerate does not, on several processes in the epoch that a run goes on in.
            self._sampler.set_epoch(epoch)
        fraction = report["fraction"]
        if not self._scored.rounds <= epoch < self.args.selection_rounds or fraction == EQUAL_WEIGHTS:
            return
        rows = self._remove_unused_columns(self.train_dataset)
        losses = self._mean_losses(selector_step, by_length(rows))[1]
        scores = validated_scores(self._scored.losses.numpy(), losses)
        agreement = round_agreement(scores, selector.logits().numpy())
        is_taken = agreement >= _LEAST_AGREEMENT
        if is_taken:
            selector.assign(tempered_logits(scores, fraction)[0])
        report["rounds"].append({"epoch": epoch, "agreement": agreement, "is_taken": is_taken})
        self._scored.rounds = epoch + 1

    def _mean_losses(
        self, selector_step: SelectorStep, dataset: Dataset, advance: Callable[[], object] = lambda: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers and mean losses of prepared rows under the model as it is; `advance` is called after every batch."""
        batch_size, check = self.args.per_device_train_batch_size, selector_step.check(self.state.global_step)
        return selector_step.losses_of(dataset, self.collator_with_ids(), batch_size, check, advance)

    def _losses(self, validation: ValidationLoss, selector_step: SelectorStep) -> tuple[PoolLosses, TrustedLosses]:
        args = self.args
        if args.gradient_checkpointing:
            _checkpoint_activations(self.model, args.gradient_checkpointing_kwargs)
        validation.begin(args.per_device_train_batch_size)

        def loss_sum(batch):
            with self.compute_loss_context_manager():
                return validation.loss_sum(self.model, self._prepare_inputs(batch))

        mean_losses = partial(self._mean_losses, selector_step)
        trusted = TrustedLosses(validation, loss_sum, mean_losses if self._is_like_pool(validation) else None)
        return self._losses_of_pool(mean_losses), trusted

    def _is_like_pool(self, validation: ValidationLoss) -> bool:
        """Whether trusted rows have the losses that the pool's rows have."""
        return self.args.validation_loss == "sft" and "labels" in validation.dataset.column_names

    def _losses_of_pool(self, mean_losses: Callable) -> PoolLosses:
        """Losses of the pool's rows with gradients; `mean_losses` is as of [`PoolLosses`]."""

        def forward(inputs):
            with self.compute_loss_context_manager():
                return self.model(**self._prepare_inputs(inputs), use_cache=False, fused_lm_head=True)

        args, rows = self.args, self._remove_unused_columns(self.train_dataset)
        return PoolLosses(rows, args.packing, self.collator_with_ids(), mean_losses, forward, args.loss_type)

    def _made_with(self, validation: ValidationLoss) -> list:
        """All that the weights follow from."""
        settings = self.args.to_dict()
        return [
            model_fingerprint(self.model),
            trained_fingerprint(self.model),
            fingerprint(self.train_dataset),
            fingerprint(validation.dataset),
            [(name, settings.get(name)) for name in _DECISIVE_SETTINGS],
            planned_updates(self.args, len(self.train_dataset)),
            self.get_total_train_batch_size(self.args),
            self.accelerator.num_processes,
            _METHOD_VERSION,
        ]

    def _take_report(self, report: dict[str, Any]) -> None:
        self.selection_report = report
        if report["confidence"] is not None:
            self.weight_confidence = WeightConfidence(**report["confidence"])

    def why_incomplete(self, checkpoint: Path) -> str | None:
        why = super().why_incomplete(checkpoint)
        is_scored = self.selector is not None and self.selector.is_fixed
        if why is None and is_scored and not (checkpoint / REPORT_NAME).is_file():
            return f"has no {REPORT_NAME}: its rows were not scored"
        return why

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.selector is not None and self.selector.is_fixed:
            self._take_report(json.loads(Path(checkpoint, REPORT_NAME).read_text()))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.selection_report is not None and self.args.should_save:
            folder = Path(self.args.output_dir if output_dir is None else output_dir)
            (folder / REPORT_NAME).write_text(json.dumps(self.selection_report, indent=2) + "\n")


def _checkpoint_activations(model: nn.Module, options: dict[str, Any] | None) -> None:
    """As Trainer does it, in which these two options are of the model and the others of `torch.utils.checkpoint`."""
    options = dict(options or {})
    of_model = {name: options.pop(name) for name in ("every_n_layers", "offload") if name in options}
    # transformers' new name, and the one that older versions know.
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    enable = next(getattr(model, name) for name in names if hasattr(model, name))
    enable(options or None, **of_model)
