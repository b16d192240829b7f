"""[`BilevelOfflineRLTrainer`]: offline RL on trajectories of mixed quality, weighed by what helps a validation set.

The parts are in `offline_rl/`: the order of phases in `schedule.py`, the loss of a token in `token_losses.py`, which
parameters move in `parameter_groups.py`, φ in `reweighter.py`, resuming in `checkpoint.py`. This file
connects them to `transformers.Trainer`: a window (the micro-batches between two optimizer steps, on all processes) is
weighed as a whole in `get_batch_samples`, before its first backward.
"""

import copy
import logging
import math
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from datasets import Dataset
from pyarrow.parquet import write_table
from torch import nn
from tqdm.auto import tqdm
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from boost_trl.data.chat_templates import with_action_marks
from boost_trl.data.first_words import first_words_of
from boost_trl.data.state_cache import action_states, trajectory_embeddings
from boost_trl.data.template_arguments import shared_template_arguments
from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.data.trajectory_store import TrajectoryBatch, TrajectoryStore
from boost_trl.hub_names import resolve_model_name
from boost_trl.losses import effective_sample_size, trajectory_weights, weight_entropy
from boost_trl.models.deepspeed_device import tell_deepspeed_the_device
from boost_trl.models.hidden_states import base_causal_lm, trainability_kept
from boost_trl.models.policy_files import BACKBONE_FOLDER, save_backbone, save_plain_model
from boost_trl.models.policy_with_value_heads import PolicyWithValueHeads
from boost_trl.models.reweighting_head import ReweightingHead
from boost_trl.models.turn_end import policy_generation_config
from boost_trl.models.value_heads import ValueHeads
from boost_trl.models.value_policy import ValuePolicy
from boost_trl.trainer.bilevel_offline_rl_config import FREE_ON_RESUME, BilevelOfflineRLConfig
from boost_trl.trainer.common.checkpoints import begin_checkpoint, checkpoint_to_resume, incomplete, run_settings
from boost_trl.trainer.common.endless_sampler import EndlessSampler
from boost_trl.trainer.common.engines import (
    cast_like_partitioned,
    check_deepspeed_config,
    check_engine_is_new,
    check_wrapper,
    forget_gradients,
    gathered,
    innermost_optimizer,
    is_partitioned,
    loading_whole,
    whole_model,
)
from boost_trl.trainer.common.hub_upload import (
    push_checkpoint,
    push_without_pickled_arguments,
    put_pickled_arguments_aside,
)
from boost_trl.trainer.offline_rl.backbone import (
    check_reference,
    freeze_output_head,
    load_model,
    tokenize_options,
    value_heads_config,
)
from boost_trl.trainer.offline_rl.checkpoint import STATE_NAMES, load_checkpoint_state, save_checkpoint_state
from boost_trl.trainer.offline_rl.divergence import WindowLosses, explain_losses, explain_parameters
from boost_trl.trainer.offline_rl.model_card import IN_A_CHECKPOINT, model_card
from boost_trl.trainer.offline_rl.parameter_average import ParameterAverage
from boost_trl.trainer.offline_rl.parameter_groups import (
    ROLES,
    FrozenGroups,
    freeze_all_but,
    split_groups_by_role,
    synchronize_primary,
)
from boost_trl.trainer.offline_rl.reweighter import TrajectoryReweighter
from boost_trl.trainer.offline_rl.schedule import BilevelSchedule, Phase, check_max_steps
from boost_trl.trainer.offline_rl.token_losses import row_scale, sum_by_row, token_losses
from boost_trl.trainer.offline_rl.validated_reweighting import ValidatedWeights, fit_reweighting_head, score_rows
from boost_trl.trainer.offline_rl.value_head_initialization import initialize_value_heads
from boost_trl.trainer.offline_rl.weighted_batches import WeightedBatches


logger = logging.getLogger(__name__)

# Weights whose effective sample size falls below this share of the rows have collapsed.
COLLAPSE_SHARE = 0.01
_SAMPLER_SEED_OFFSETS = {"validation": 1, "reweighting": 2, "mixture": 3}


@dataclass
class MicroBatch:
    """Training and validation rows of one micro-batch, with what multiplies each row's token sum.

    `train_share` and `validation_share` are what it counts for in the window's mean loss over rows of either kind.
    """

    rows: np.ndarray
    coefficients: np.ndarray
    is_validation: np.ndarray
    alpha: float
    train_share: float
    validation_share: float


class _BilevelCallback(TrainerCallback):
    """Runs what follows an optimizer step: target heads, phases 2 and 4, averaging."""

    def __init__(self, trainer: "BilevelOfflineRLTrainer"):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        # A given `max_steps` was checked before; the updates of a number of epochs are known only now.
        if args.is_bilevel and args.max_steps <= 0:
            self.trainer._check_max_steps(state.max_steps)
        self.trainer._begin_run()
        self.trainer._begin_mixture()
        self.trainer._frozen_groups = FrozenGroups(self.trainer.optimizer)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.trainer._check_losses(self.trainer._window_losses.take(), f"before policy update {state.global_step + 1}")
        self.trainer._record_gradient_norms()

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer._after_policy_update(state.global_step - 1)

    def on_train_end(self, args, state, control, **kwargs):
        self.trainer._use_averaged_parameters()
        self.trainer._frozen_groups.remove()


class BilevelOfflineRLTrainer(Trainer):
    """Offline RL for multi-turn agents with learned trajectory weights ([B], arXiv 2605.24743).

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`):
            Causal LM; its hidden states feed the value heads.
        args ([`BilevelOfflineRLConfig`], *optional*):
            Configuration; default values if `None`.
        train_dataset (`Dataset`):
            Offline and synthetic rows in the trajectory format (see `boost_trl.data.trajectories`).
        eval_dataset (`Dataset` or `dict[str, Dataset]`, *optional*):
            Held-out trajectories; `evaluate()` reports their mean loss.
        processing_class (`PreTrainedTokenizerBase`, *optional*):
            Fast tokenizer; loaded with the model by default.
        callbacks, optimizer_cls_and_kwargs, peft_config, quantization_config (*optional*):
            As in [`~trl.SFTTrainer`].
        validation_dataset (`Dataset`, keyword-only):
            The small trusted set of the upper level. Required unless `args.method="vanilla"`.
        environment (`Environment` or a callable that makes one, keyword-only, *optional*):
            `evaluate()` plays it.
        eval_tasks (`list[Task]`, keyword-only, *optional*):
            The tasks to play; all tasks of `environment` by default.

    The remaining arguments of `SFTTrainer` keep their place but have no meaning here and raise when given.

    Raises:
        ValueError: for a bad row, a missing validation dataset, or an argument that does not apply; before any training.
    """

    _tag_names = ["boost_trl", "offline-rl", "bilevel"]

    def __init__(
        self,
        model: str | PreTrainedModel | nn.Module,
        args: BilevelOfflineRLConfig | TrainingArguments | None = None,
        data_collator=None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        compute_loss_func=None,
        compute_metrics=None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics=None,
        quantization_config=None,
        peft_config=None,
        formatting_func=None,
        *,
        validation_dataset: Dataset | None = None,
        environment=None,
        eval_tasks=None,
    ):
        unused = {
            "data_collator": data_collator,
            "compute_loss_func": compute_loss_func,
            "compute_metrics": compute_metrics,
            "preprocess_logits_for_metrics": preprocess_logits_for_metrics,
            "formatting_func": formatting_func,
        }
        for name, value in unused.items():
            if value is not None:
                raise ValueError(f"`{name}` has no meaning for BilevelOfflineRLTrainer; leave it out")
        if optimizers[0] is not None:
            raise ValueError(
                "an optimizer built before the trainer cannot hold the value heads; pass `optimizer_cls_and_kwargs`"
            )
        if args is None:
            args = BilevelOfflineRLConfig("bilevel-offline-rl")
        elif not isinstance(args, BilevelOfflineRLConfig):
            # As TRL's trainers do; `to_dict` hides the token.
            args = BilevelOfflineRLConfig(**{**args.to_dict(), "hub_token": args.hub_token})
        check_deepspeed_config(args)
        if train_dataset is None:
            raise ValueError("`train_dataset` is required")
        _check_datasets(
            train_dataset=train_dataset,
            validation_dataset=validation_dataset,
            **{f"eval_dataset[{name!r}]" if name else "eval_dataset": d for name, d in _named(eval_dataset).items()},
        )
        if args.uses_validation and validation_dataset is None:
            raise ValueError(
                f"`method={args.method!r}` is guided by a validation set: pass `validation_dataset=`, or set "
                "`method='vanilla'` to train without one"
            )
        if not args.uses_validation and validation_dataset is not None:
            raise ValueError("`method='vanilla'` never sees validation data: leave `validation_dataset` out")

        model, processing_class = load_model(model, args, processing_class, quantization_config, peft_config)
        check_reference(model, args)
        tokenizer = with_action_marks(processing_class)
        self._tokenize_options = tokenize_options(model, args)
        training = tokenize_trajectories(train_dataset, tokenizer, name="train_dataset", **self._tokenize_options)
        validation = []
        if args.uses_validation:
            validation = tokenize_trajectories(
                validation_dataset, tokenizer, name="validation_dataset", **self._tokenize_options
            )
        self.train_store = TrajectoryStore(training, tokenizer.pad_token_id)
        # Training rows first, so that a training row has the same number in both; a micro-batch may mix the two.
        self._store = TrajectoryStore([*training, *validation], tokenizer.pad_token_id)
        self._num_validation = len(self._store) - len(self.train_store)
        if args.scores_rows and args.guard and self._num_validation < 4:
            raise ValueError(
                f"the guard cuts `validation_dataset` in two folds, which {self._num_validation} usable rows do not allow: "
                "add rows, or set `guard=False`"
            )
        self.data_fingerprint = self._store.fingerprint(with_rewards=True)
        self.trajectories = train_dataset

        if not args.train_backbone:
            model.requires_grad_(False)
        elif not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(
                "no parameter of the model requires a gradient although `train_backbone` is true: pass `peft_config`, "
                "set `train_backbone=False`, or unfreeze the model with `model.requires_grad_(True)`"
            )
        freeze_output_head(model)
        with gathered(model.parameters()):
            heads_config = value_heads_config(model, args, self.train_store)
        wrapper = PolicyWithValueHeads(
            model,
            ValueHeads(heads_config),
            ValueHeads(heads_config) if args.is_bilevel else None,
            separate_adapters=args.auxiliary_policy == "adapter",
        )
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False

        self._environment, self._eval_tasks = _checked_games(environment, eval_tasks)
        self._reference_model: PreTrainedModel | None = None
        self._generation_config = policy_generation_config(tokenizer)
        self.chat_template_kwargs = shared_template_arguments(train_dataset)
        if self.chat_template_kwargs is None:
            self.chat_template_kwargs = {}
            logger.warning(
                "the training rows differ in `tools` or `chat_template_kwargs`: games are rendered with neither of them"
            )
        # Why what was saved last is no plain causal LM, `None` if it is one.
        self._why_not_plain: str | None = None
        self._totals: dict[str, list[torch.Tensor]] = defaultdict(lambda: [0.0, 0.0])
        self.num_tokens = 0
        self._has_collapsed = False
        # Of all rows; they change in phase 4 only.
        self._logged_statistics: dict[str, float] | None = None
        self._phase = Phase.PRIMARY if args.is_bilevel else Phase.VANILLA
        self.reweighter: TrajectoryReweighter | None = None
        self.validated: ValidatedWeights | None = None
        self._fitted_head: ReweightingHead | None = None
        tell_deepspeed_the_device()
        super().__init__(
            model=wrapper,
            args=args,
            data_collator=_collate_indices,
            train_dataset=self.train_store,
            # Trainer evaluates only what has a dataset; games need none.
            eval_dataset={} if eval_dataset is None and environment is not None else eval_dataset,
            processing_class=tokenizer,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )
        check_wrapper(args)
        if self.is_deepspeed_enabled and not is_partitioned(self.model):
            # DeepSpeed moves the model when training begins; what is computed before would take the CPU.
            self.model.to(args.device)
        # A row's coefficient is normalised over the whole window on all processes.
        self.loss_is_scaled_for_ga = True
        self.add_callback(_BilevelCallback(self))
        self._cache_dir = Path(args.cache_dir) if args.cache_dir else None
        self._eval_stores = {
            name: self._make_eval_store(dataset, name) for name, dataset in _named(eval_dataset).items()
        }
        with whole_model(self.model_wrapped):
            with self.accelerator.main_process_first():
                self._prepare_states()
            self._initialize_heads()
        self.samplers = {
            "validation": EndlessSampler(
                max(1, self._num_validation), args.seed + _SAMPLER_SEED_OFFSETS["validation"]
            ),
            "reweighting": EndlessSampler(len(self.train_store), args.seed + _SAMPLER_SEED_OFFSETS["reweighting"]),
        }
        self.parameter_average = ParameterAverage()
        self._window_losses = WindowLosses(self.accelerator)
        if args.max_steps > 0 and args.is_bilevel:
            self._check_max_steps(args.max_steps)

    # Preparation

    def _check_max_steps(self, max_steps: int) -> None:
        check_max_steps(max_steps, self.args.auxiliary_steps, self.args.primary_steps)
        cycle = self.args.auxiliary_steps + self.args.primary_steps
        if max_steps % cycle:
            logger.warning(
                f"{max_steps} policy updates are not a multiple of an outer iteration ({cycle}): the last "
                f"{max_steps % cycle} are an unfinished one"
            )

    def _make_eval_store(self, dataset: Dataset, name: str) -> TrajectoryStore:
        name = "eval_dataset" if name == "" else f"eval_dataset[{name!r}]"
        rows = tokenize_trajectories(dataset, self.processing_class, name=name, **self._tokenize_options)
        store = TrajectoryStore(rows, self.processing_class.pad_token_id)
        with whole_model(self.model_wrapped), self.accelerator.main_process_first():
            self._cache_states(store)
        return store

    def _cache_states(self, store: TrajectoryStore) -> None:
        if not self.args.train_backbone:
            dtype = getattr(torch, self.args.states_dtype)
            store.states = action_states(self.model.backbone, store, dtype, self._cache_dir)

    def _prepare_states(self) -> None:
        self._cache_states(self._store)
        if self._store.states is not None:
            self.train_store.states = self._store.states[: self.train_store.num_states]
        if not self.args.learns_weights:
            return
        embeddings = trajectory_embeddings(self.model.backbone, self.train_store, self._cache_dir)
        self.reweighter = TrajectoryReweighter(
            self._new_reweighting_head(embeddings), embeddings, self.args.reweighting_learning_rate
        )

    def _new_reweighting_head(self, embeddings: torch.Tensor) -> ReweightingHead:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.args.seed)
            head = ReweightingHead(
                embeddings.shape[1], self.args.reweighting_head_size, self.args.reweighting_head_depth
            )
        if self.args.standardize_embeddings:
            head.fit_standardization(embeddings)
        return head

    @property
    def reweighting_head(self) -> ReweightingHead | None:
        """w_φ, when weights are learned; for `method="validated"` fitted to ln w, so that it gives the relative weight
        of rows that were never scored."""
        return self._fitted_head if self.reweighter is None else self.reweighter.head

    @property
    def validated_report(self) -> dict[str, Any] | None:
        """What validated reweighting decided and why (see `validated_weights`); known once training has started."""
        return None if self.validated is None else self.validated.report

    def _score_rows(self) -> None:
        """Weights for `method="validated"`, from the states of the unmodified backbone, which are then let go."""
        backbone, store = self.model.backbone, copy.copy(self._store)
        with whole_model(self.model_wrapped), self.accelerator.main_process_first():
            if store.states is None:
                store.states = action_states(backbone, store, getattr(torch, self.args.states_dtype), self._cache_dir)
            embeddings = trajectory_embeddings(backbone, self.train_store, self._cache_dir)
        args = self.args
        updates_per_epoch = math.ceil(len(self.train_store) / self.get_total_train_batch_size(args))
        updates = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * updates_per_epoch)
        validated = score_rows(
            copy.deepcopy(self.model.primary).to(args.device),
            store,
            len(self.train_store),
            args,
            updates=updates,
            rows_per_update=len(self.train_store) / updates_per_epoch / self.accelerator.num_processes,
            progress=self.is_world_process_zero() and not args.disable_tqdm,
        )
        if self.accelerator.num_processes > 1:
            # Every process did the same work; the last digits may still differ between devices.
            validated = broadcast_object_list([validated])[0]
        self.validated = validated
        self._fitted_head = self._new_reweighting_head(embeddings)
        fit_reweighting_head(self._fitted_head, embeddings, validated.log_weights(), seed=self.args.seed)
        if self.args.should_save:
            validated.save_report(Path(self.args.output_dir))
        if self.is_world_process_zero():
            # As Trainer prints its logs; a logger would hide it at the usual level.
            tqdm.write(validated.verdict())

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        check_engine_is_new(self.deepspeed)
        resume_from_checkpoint = checkpoint_to_resume(
            resume_from_checkpoint, self.args.output_dir, self.why_incomplete
        )
        # Before the model is wrapped; a checkpoint brings its weights along.
        if self.args.scores_rows and self.validated is None and not resume_from_checkpoint:
            self._score_rows()
        cast_like_partitioned(self.model)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _begin_run(self) -> None:
        """Forget what an earlier run of this trainer, or the shorter run that a checkpoint comes from, has left behind."""
        self._totals.clear()
        self._window_losses.clear()
        self._logged_statistics = None
        self._has_collapsed = False
        if self.state.global_step == 0:
            self.num_tokens = 0
            for sampler in self.samplers.values():
                sampler.position = 0
        share = self.args.average_last
        averaged = self.schedule.averaged_before(self.state.global_step, share)
        if self.parameter_average.count != averaged:
            # Means over updates that are not the last ones of this run.
            self.parameter_average.reset()
            if averaged:
                logger.warning(
                    f"{averaged} of the updates to average lie before the checkpoint, which did not average them: the "
                    "result is the mean over the remaining ones"
                )
        if share > 0:
            self.parameter_average.allocate(self._averaged_parameters())

    def _begin_mixture(self) -> None:
        if self.args.method != "validated":
            return
        self._mixture = WeightedBatches(
            np.ones(len(self.train_store)) if self.validated is None else self.validated.weights,
            self._num_validation,
            self.args.validation_share,
            self.args.seed + _SAMPLER_SEED_OFFSETS["mixture"],
        )
        if self.validated is not None and self.state.global_step == 0:
            self.log(self.validated.summary())

    def _initialize_heads(self) -> None:
        initialize_value_heads(
            self.model.primary,
            self.model.backbone,
            self.train_store,
            init=self.args.value_head_init,
            cql_weight=self.args.cql_weight,
            seed=self.args.seed,
        )
        if self.model.auxiliary is not None:
            self.model.auxiliary.copy_from(self.model.primary)

    # Windows: the micro-batches between two optimizer steps, weighed as a whole

    @property
    def schedule(self) -> BilevelSchedule:
        """The phases of this run; known once training has started."""
        return BilevelSchedule(
            auxiliary_steps=self.args.auxiliary_steps if self.args.is_bilevel else 0,
            primary_steps=self.args.primary_steps,
            max_steps=self.state.max_steps,
            alpha_init=self.args.penalty_alpha_init,
            alpha_final=self.args.penalty_alpha_final,
            alpha_ramp=self.args.penalty_alpha_ramp,
            bilevel=self.args.is_bilevel,
        )

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """The next window: training rows from the loader and, in phase 3, as many validation rows, with their weights."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        rows_of = [np.asarray(sample["index"].tolist()) for sample in samples]
        return [{"micro_batch": micro_batch} for micro_batch in self._weigh_window(rows_of)], None

    def _weigh_window(self, rows_of: list[np.ndarray]) -> list[MicroBatch]:
        schedule, step = self.schedule, self.state.global_step
        self._phase = schedule.phase(step)
        roles = ("backbone", "auxiliary" if self._phase is Phase.AUXILIARY else "primary")
        freeze_all_but(self.optimizer, roles)
        forget_gradients(p for name, p in self.model.named_parameters() if self.model.role_of(name) not in roles)
        if self.args.method == "validated":
            return self._mix_window([len(rows) for rows in rows_of])
        alpha = schedule.alpha(step) if self._phase is Phase.PRIMARY else 1.0

        mine = np.concatenate(rows_of)
        everyone = gather_object([mine.tolist()]) if self.accelerator.num_processes > 1 else [mine.tolist()]
        window = np.concatenate([np.asarray(rows) for rows in everyone])
        my_start = sum(len(rows) for rows in everyone[: self.accelerator.process_index])
        self.num_tokens += int(self._store.input_lengths[window].sum())
        if self.reweighter is not None:
            weights = self.reweighter.weights(window).numpy()
        else:
            weights = np.full(len(window), 1 / len(window))
        coefficients = (alpha * weights * self._row_scale(window))[my_start : my_start + len(mine)]
        pieces = np.split(coefficients, np.cumsum([len(rows) for rows in rows_of])[:-1])

        validation_pieces = [np.empty(0, dtype=np.int64)] * len(rows_of)
        validation_scale = 0.0
        if self._phase is Phase.PRIMARY:
            micro_batches = self.accelerator.num_processes * len(rows_of)
            drawn = self.samplers["validation"].take(self.args.validation_rows(micro_batches, len(window)))
            drawn = np.asarray(drawn)
            drawn += len(self.train_store)
            validation_scale = self._row_scale(drawn) / len(drawn)
            shares = np.array_split(np.arange(len(drawn)), micro_batches)
            first = self.accelerator.process_index * len(rows_of)
            shares = shares[first : first + len(rows_of)]
            validation_pieces = [drawn[share] for share in shares]
            validation_coefficients = [validation_scale[share] for share in shares]
            self.num_tokens += int(self._store.input_lengths[drawn].sum())
        else:
            validation_coefficients = validation_pieces

        share = 1 / (len(rows_of) * self.accelerator.num_processes)
        return [
            MicroBatch(
                rows=np.concatenate([rows, validation]),
                coefficients=np.concatenate([piece, validation_coefficient]),
                is_validation=np.repeat([False, True], [len(rows), len(validation)]),
                alpha=alpha,
                train_share=share,
                validation_share=share if self._phase is Phase.PRIMARY else 0.0,
            )
            for rows, piece, validation, validation_coefficient in zip(
                rows_of, pieces, validation_pieces, validation_coefficients
            )
        ]

    def _mix_window(self, sizes: list[int]) -> list[MicroBatch]:
        """`method="validated"`: rows drawn by weight and validation rows, all counting equally. The loader's rows only
        say how many there are."""
        everyone = gather_object([sizes]) if self.accelerator.num_processes > 1 else [sizes]
        window = self._mixture.rows(self.state.global_step, sum(map(sum, everyone)))
        self.num_tokens += int(self._store.input_lengths[window].sum())
        coefficients = self._row_scale(window) / len(window)
        start = sum(map(sum, everyone[: self.accelerator.process_index]))
        borders = start + np.cumsum([0, *sizes])
        micro_batches = []
        for first, last in zip(borders, borders[1:]):
            is_validation = window[first:last] >= len(self.train_store)
            micro_batches.append(
                MicroBatch(
                    rows=window[first:last],
                    coefficients=coefficients[first:last],
                    is_validation=is_validation,
                    alpha=1.0,
                    train_share=(~is_validation).sum() / len(window),
                    validation_share=is_validation.sum() / len(window),
                )
            )
        return micro_batches

    def _row_scale(self, rows: np.ndarray, store: TrajectoryStore | None = None) -> np.ndarray:
        """What turns a row's token sum into ℓ(τ), under `loss_normalization`."""
        return row_scale((store or self._store).action_counts[rows], self.args.loss_normalization)

    def _forward(
        self, model: nn.Module, batch: TrajectoryBatch, roles: tuple[str, ...], anchored: bool = False
    ) -> dict:
        """Token losses by role, and the `"anchor"` of [`PolicyWithValueHeads`] if asked for."""
        if batch.states is None:
            source = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        else:
            source = {"states": batch.states}
        output = model(
            action_index=batch.action_index,
            actions=batch.actions,
            state_index=batch.state_index,
            roles=roles,
            anchored=anchored,
            **source,
        )
        # Value losses are float32 whatever the autocast type of the forward.
        with torch.autocast(batch.actions.device.type, enabled=False):
            losses = {
                role: token_losses(
                    output[role],
                    batch,
                    self.model.primary.config,
                    cql_weight=self.args.cql_weight,
                    expectile=self.args.expectile,
                    half_squared_error=self.args.half_squared_error,
                )
                for role in roles
            }
        return {**losses, "anchor": output["anchor"]["zero"]} if anchored else losses

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This process's part of the window's objective, times the number of processes (gradients are averaged)."""
        micro_batch: MicroBatch = inputs["micro_batch"]
        device = self.args.device
        batch = self._store.collate(micro_batch.rows).to(device)
        role = "auxiliary" if self._phase is Phase.AUXILIARY else "primary"
        # Gradients of the other policy's heads, all zero, cost as much memory as its parameters.
        anchored = self.accelerator.distributed_type not in (DistributedType.NO, DistributedType.DEEPSPEED)
        output = self._forward(model, batch, (role,), anchored)
        losses = output[role]
        coefficients = torch.as_tensor(micro_batch.coefficients, dtype=torch.float32, device=device)
        per_row = coefficients * sum_by_row(losses["loss"], batch)
        self._window_losses.add(micro_batch.rows, per_row)
        self._record_losses(micro_batch, batch, losses, per_row.detach())
        loss = per_row.sum() + output["anchor"] if anchored else per_row.sum()
        return loss * self.accelerator.num_processes

    # After a policy update

    def _after_policy_update(self, step: int) -> None:
        schedule = self.schedule
        heads: ValueHeads = self.model.auxiliary if self._phase is Phase.AUXILIARY else self.model.primary
        if self.args.algorithm == "ilql" and self.args.target_update_rate is not None:
            with gathered(heads.parameters()):
                heads.update_targets(self.args.target_update_rate)
        if schedule.synchronizes_after(step):
            synchronize_primary(self.model, self.optimizer)
        if self.reweighter is not None and schedule.reweights_after(step):
            for _ in range(self.args.reweighting_steps):
                self._update_reweighting_head(step)
        if schedule.averages_after(step, self.args.average_last):
            self.parameter_average.add(self._averaged_parameters())
        # Whoever looks at the model between updates (evaluation, saving, callbacks) means θ.
        self.model.use_adapter_of("primary")

    def _averaged_parameters(self) -> dict[str, nn.Parameter]:
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and self.model.role_of(name) != "auxiliary"
        }

    def _use_averaged_parameters(self) -> None:
        self.parameter_average.apply_to(self._averaged_parameters())
        self._check_parameters()

    def _check_losses(self, losses: list[tuple[int, float]] | None, moment: str) -> None:
        """Raise an error for the losses of a batch, if there are any, that are not all finite."""
        if losses is not None:
            with gathered(self.model.parameters()):
                error = explain_losses(moment, losses, self._name_of_row, self._trained_parameters())
            raise error

    def _check_parameters(self) -> None:
        with gathered(self.model.parameters()):
            error = explain_parameters(f"after policy update {self.state.global_step}", self._trained_parameters())
        if error is not None:
            raise error

    def _trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def _name_of_row(self, row: int) -> str:
        """What the user calls row `row` of training and validation rows together."""
        original = int(self._store.original_row[row])
        if original < len(self.trajectories):
            return f"train_dataset, row {original}"
        return f"validation_dataset, row {original - len(self.trajectories)}"

    @torch.no_grad()
    def _row_losses(
        self, rows: np.ndarray, roles: tuple[str, ...], store: TrajectoryStore, batch_size: int
    ) -> np.ndarray:
        """ℓ(τ) of `rows` under each role, without dropout, (len(roles), B). Every process passes the same rows, computes
        its share of them, `batch_size` at a time, and gets all losses."""
        model = self.model_wrapped
        model.eval()
        share = -(-len(rows) // self.accelerator.num_processes)
        mine = rows[self.accelerator.process_index * share :][:share]
        losses: list[list[float]] = []
        for start in range(0, share, batch_size):
            piece = mine[start : start + batch_size]
            # All processes run the same number of forwards, or those that wrappers make collective would wait for ever.
            batch = store.collate(piece if len(piece) else rows[:1]).to(self.args.device)
            with self.compute_loss_context_manager():
                output = self._forward(model, batch, roles)
            sums = torch.stack([sum_by_row(output[role]["loss"], batch) for role in roles])
            losses += sums.T.tolist()[: len(piece)]
        model.train()
        if self.accelerator.num_processes > 1:
            losses = gather_object(losses)
        return np.asarray(losses).T * self._row_scale(rows, store)

    @torch.enable_grad()
    def _update_reweighting_head(self, step: int) -> None:
        """Phase 4 on a fresh optimizer batch: every process computes its share of the gaps, all take the same step."""
        processes = self.accelerator.num_processes
        batch_size = self.args.per_device_train_batch_size
        window = np.asarray(
            self.samplers["reweighting"].take(batch_size * self.args.gradient_accumulation_steps * processes)
        )
        losses = self._row_losses(window, ("primary", "auxiliary"), self._store, batch_size)
        if not np.isfinite(losses).all():
            self._check_losses(
                list(zip(window.tolist(), losses.sum(axis=0).tolist())), f"after policy update {step + 1}"
            )
        gaps = torch.from_numpy(losses[0] - losses[1]).float()
        alpha = self.args.reweighting_alpha
        alpha = self.schedule.alpha(step) if alpha is None else alpha
        objective = self.reweighter.update(window, gaps, alpha)
        self._logged_statistics = None
        self._record("reweighting_objective", objective, 1.0 / processes, scale=1.0 / processes)

    # Logging

    def _record(self, name: str, total, count, scale: float = 1.0) -> None:
        self._totals[name][0] += total * scale
        self._totals[name][1] += count

    def _record_losses(self, micro_batch: MicroBatch, batch: TrajectoryBatch, losses: dict, per_row) -> None:
        validation = torch.as_tensor(micro_batch.is_validation, device=per_row.device)
        share = micro_batch.train_share
        # Selecting by a mask would wait for the device.
        upper, lower = (torch.where(mask, per_row, 0).sum() for mask in (validation, ~validation))
        self._record("train_loss_weighted", lower / (micro_batch.alpha or 1.0), share)
        if self.args.uses_validation:
            self._record("validation_loss", upper, micro_batch.validation_share)
        if self._phase is not Phase.VANILLA:
            self._record("penalty_alpha", self.schedule.alpha(self.state.global_step) * share, share)
        for name, value in losses.items():
            label = {"q": "mean_q", "v": "mean_v"}.get(name, f"{name}_loss")
            if name != "loss":
                self._record(label, value.detach().sum(), len(value))

    def _record_gradient_norms(self) -> None:
        """Per role, after clipping; only for the step that will be logged."""
        if self.is_deepspeed_enabled:
            # It has stepped already, and a process sees the gradients of its own partitions at most.
            return
        if self.state.logging_steps < 1 or (self.state.global_step + 1) % self.state.logging_steps:
            return
        gradients = defaultdict(list)
        for group in innermost_optimizer(self.optimizer).param_groups:
            if not group["frozen"]:
                gradients[group["role"]] += [p.grad for p in group["params"] if p.grad is not None]
        for role in ROLES:
            if gradients[role]:
                self._record(f"grad_norm_{role}", nn.utils.get_total_norm(gradients[role]), 1.0)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._totals:
            names = sorted(self._totals)
            totals = torch.tensor([[float(x) for x in self._totals[name]] for name in names], device=self.args.device)
            if self.accelerator.num_processes > 1:
                totals = self.accelerator.reduce(totals)
            logs.update({name: (total / count).item() for name, (total, count) in zip(names, totals) if count > 0})
            logs["num_tokens"] = self.num_tokens
            if self._phase is not Phase.VANILLA:
                # Of the last update; a mean over both phases would name one that there is not.
                logs["phase"] = {Phase.AUXILIARY: 1, Phase.PRIMARY: 3}[self._phase]
            self._totals.clear()
            if self._logged_statistics is None:
                self._logged_statistics = self.weight_statistics()
                self._warn_of_collapse(self._logged_statistics)
            logs.update(self._logged_statistics)
        if "train_runtime" in logs and self.validated is not None:
            logs["scoring_runtime"] = self.validated.report["seconds"]
        super().log(logs, start_time)

    def _warn_of_collapse(self, statistics: dict[str, float]) -> None:
        smallest = COLLAPSE_SHARE * len(self.train_store)
        if not self._has_collapsed and statistics.get("effective_sample_size", smallest) < smallest:
            self._has_collapsed = True
            logger.warning(
                f"the weights have collapsed: their effective sample size is {statistics['effective_sample_size']:.1f} of "
                f"{len(self.train_store)} rows, so nearly all training data is ignored; lower `reweighting_learning_rate` "
                "or `reweighting_steps`, or use `method='validated'`"
            )

    @torch.no_grad()
    def weight_statistics(self) -> dict[str, float]:
        """n_eff = 1/Σw̃², entropy and largest weight (times N) of the softmax over the whole training set, and the mean
        weight (times N) by `source`. Empty when weights are not learned."""
        if self.reweighter is None and self.validated is None:
            return {}
        weights = torch.from_numpy(self._scores_and_weights()[1])
        statistics = {
            "effective_sample_size": effective_sample_size(weights).item(),
            "weight_entropy": weight_entropy(weights).item(),
            "largest_weight": weights.max().item() * len(weights),
        }
        if "source" in self.trajectories.column_names:
            sources = np.asarray(self.trajectories["source"])[self.train_store.original_row]
            for source in sorted({source for source in sources if source is not None}):
                statistics[f"weight_{source}"] = weights[torch.from_numpy(sources == source)].mean().item() * len(
                    weights
                )
        return statistics

    def _scores_and_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the training rows that are used, (N,) each; the weights sum to one."""
        if self.validated is not None:
            return self.validated.scores, self.validated.weights
        scores = torch.zeros(len(self.train_store)) if self.reweighter is None else self.reweighter.scores().cpu()
        return scores.numpy(), trajectory_weights(scores).numpy()

    # Results

    def example_weights(self) -> Dataset:
        """The weight of every training row, in the order of `train_dataset`.

        Returns:
            `Dataset` with `index`, `weight` (N·w̃, mean 1 over the rows that are used; 0 for a row without a whole action
            within `max_length`), `score` (w_φ, or f for `method="validated"`; `None` for such a row), `text` (the row's
            first words), and `source` and `category` where known.
        """
        dataset, store = self.trajectories, self.train_store
        scores, weights = self._scores_and_weights()
        weights = weights * len(store)
        columns: dict[str, list] = {
            "index": list(range(len(dataset))),
            "weight": [0.0] * len(dataset),
            "score": [None] * len(dataset),
            "text": self._first_words,
        }
        for row, weight, score in zip(store.original_row, weights, scores):
            columns["weight"][row], columns["score"][row] = float(weight), float(score)
        for name in ("source", "category"):
            if name in dataset.column_names:
                columns[name] = list(dataset[name])
        return Dataset.from_dict(columns)

    @cached_property
    def _first_words(self) -> list[str]:
        return first_words_of(self.trajectories)

    def policy(self, beta: float | None = None, prior: str | None = None) -> ValuePolicy:
        """The extracted policy of θ as it stands, ready for `generate`. It shares the trainer's parameters; under ZeRO-3 it
        is a whole copy of them, and all processes have to ask for it together."""
        if not is_partitioned(self.model):
            return self._shared_policy(beta, prior)
        with whole_model(self.model_wrapped):
            policy = self._shared_policy(beta, prior)
            policy.causal_lm, policy.value_heads = copy.deepcopy(policy.causal_lm), copy.deepcopy(policy.value_heads)
        return policy

    def _shared_policy(self, beta: float | None = None, prior: str | None = None) -> ValuePolicy:
        prior = self.args.policy_prior if prior is None else prior
        reference = None
        if prior == "lm" and self.args.reference_model_name_or_path is not None:
            if self._reference_model is None:
                name = resolve_model_name(self.args.reference_model_name_or_path)
                with loading_whole(self.args):
                    self._reference_model = AutoModelForCausalLM.from_pretrained(name)
                self._reference_model.to(self.args.device)
            reference = self._reference_model
        policy = ValuePolicy(
            self.accelerator.unwrap_model(self.model_wrapped).backbone,
            self.model.primary,
            beta=self.args.beta if beta is None else beta,
            prior=prior,
            reference_model=reference,
            processing_class=self.processing_class,
        )
        policy.generation_config = copy.deepcopy(self._generation_config)
        # Without dropout; training switches it on again by itself.
        return policy.eval()

    def evaluate(
        self,
        eval_dataset: Dataset | dict[str, Dataset] | str | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Mean ℓ(τ; θ) over the held-out trajectories and, with an environment, live games.

        Returns:
            `dict`: `eval_loss`, and `eval_score_mean`, `eval_score_se`, `eval_success_rate`, `eval_mean_turns`.
        """
        if isinstance(eval_dataset, str) and eval_dataset not in self._eval_stores:
            raise ValueError(
                f"`eval_dataset` has no {eval_dataset!r}; this trainer was given {sorted(self._eval_stores) or 'none'}"
            )
        if eval_dataset is None or isinstance(eval_dataset, str):
            stores = self._eval_stores if eval_dataset is None else {eval_dataset: self._eval_stores[eval_dataset]}
        else:
            stores = {name: self._make_eval_store(dataset, name) for name, dataset in _named(eval_dataset).items()}
        metrics = {}
        for name, store in stores.items():
            rows = np.arange(len(store))
            # Before training no engine gathers what `from_pretrained` has partitioned.
            with whole_model(self.model) if self.model_wrapped is self.model else nullcontext():
                losses = self._row_losses(rows, ("primary",), store, self.args.per_device_eval_batch_size)[0]
            key = f"{metric_key_prefix}_{name}_loss" if name else f"{metric_key_prefix}_loss"
            metrics[key] = float(losses.mean())
        if self._environment is not None:
            results = self._play()
            metrics.update({f"{metric_key_prefix}_{name}": value for name, value in results.items()})
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def predict(self, *args, **kwargs):
        """Not supported: there is nothing to predict from a recorded trajectory; `policy()` acts, `evaluate()` judges."""
        raise NotImplementedError(
            "BilevelOfflineRLTrainer has no predict(); use policy() to act and evaluate() to judge"
        )

    def _play(self) -> dict[str, float]:
        """Statistics of `eval_games` games; each process plays its share of them."""
        from boost_trl.environments.policies import GenerationPolicy
        from boost_trl.environments.rollout import choose_tasks, rollout, summarize

        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        tasks = _all_tasks(self._environment) if self._eval_tasks is None else self._eval_tasks
        tasks = choose_tasks(tasks, self.args.eval_games, self.args.seed)[rank::processes]
        # A rank with the seed of another would play its dice.
        seed = self.args.seed + rank
        self.model.eval()
        games = []
        with whole_model(self.model_wrapped):
            policy = GenerationPolicy(
                self._shared_policy(),
                self.processing_class,
                max_new_tokens=self.args.max_new_tokens,
                seed=seed,
                chat_template_kwargs=self.chat_template_kwargs,
            )
            if tasks:
                games = rollout(
                    policy,
                    self._environment,
                    tasks,
                    seed=seed,
                    progress=rank == 0 and not self.args.disable_tqdm,
                )
                games = games.select_columns(["score", "success", "rewards", "error"]).to_list()
        self.model.train()
        if processes > 1:
            games = gather_object(games)
        results = summarize(Dataset.from_list(games))
        return {name: value for name, value in results.items() if isinstance(value, int | float)}

    # Saving

    def why_incomplete(self, checkpoint: Path) -> str | None:
        """Why this trainer cannot resume from a folder that was not written to its end; `None` if it can."""
        return incomplete(
            checkpoint,
            self.args,
            STATE_NAMES,
            model_folder=BACKBONE_FOLDER,
            deepspeed=self.is_deepspeed_enabled,
        )

    def _save_checkpoint(self, model, trial) -> None:
        self._check_parameters()
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
            begin_checkpoint(folder, run_settings(self.args, FREE_ON_RESUME))
        super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir if output_dir is not None else self.args.output_dir)
        whole = self.model.state_dict() if state_dict is None else state_dict

        def of(part: str) -> dict[str, torch.Tensor]:
            return {name.removeprefix(part): value for name, value in whole.items() if name.startswith(part)}

        adapters = (
            {} if base_causal_lm(self.model.backbone) is self.model.backbone else {"selected_adapters": ["default"]}
        )
        save_backbone(
            folder,
            self.model.backbone,
            self._generation_config,
            state_dict=None if state_dict is None else of("backbone."),
            **adapters,
        )
        self.model.primary.save_pretrained(folder, state_dict=of("primary."))
        if self.reweighting_head is not None:
            self.reweighting_head.save_pretrained(folder)
        if self.validated is not None:
            self.validated.save_report(folder)
        self.processing_class.save_pretrained(folder)
        write_table(self.example_weights().data.table, folder / "example_weights.parquet")
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR):
            save_checkpoint_state(self, folder, whole)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the policy: its backbone (or adapter), the heads, the example weights and the model card; outside of
        checkpoints also as a plain causal LM, where it folds into one."""
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        if self.is_deepspeed_enabled and self.deepspeed is None:
            # Trainer asks the engine, which comes with training.
            with whole_model(self.model):
                self._save(folder)
        else:
            super().save_model(output_dir, _internal_call)
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR):
            self._why_not_plain = IN_A_CHECKPOINT
        else:
            self._save_plain_model(folder)
        if self.args.should_save:
            model_card(self, why_not_plain=self._why_not_plain).save(folder / "README.md")
            if _internal_call and output_dir is None:
                # For a push: Trainer's upload takes the whole folder.
                put_pickled_arguments_aside(folder)

    def _save_plain_model(self, folder: Path) -> None:
        with whole_model(self.model_wrapped):
            if not self.args.should_save:
                return
            self._why_not_plain = save_plain_model(folder, self._shared_policy())
        if self._why_not_plain is not None:
            logger.warning(f"{folder} holds a `ValuePolicy` and no plain causal LM: {self._why_not_plain}")

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, tags: str | list[str] | None = None
    ) -> None:
        """Write `README.md` into `output_dir`.

        Args:
            model_name (`str`, *optional*): the card's heading; the folder's name by default.
            dataset_name (`str`, *optional*): a dataset on the Hub.
            tags (`str` or `list[str]`, *optional*): beside the trainer's own.
        """
        if self.is_world_process_zero():
            model_card(
                self,
                why_not_plain=self._why_not_plain,
                model_name=model_name,
                dataset_name=dataset_name,
                tags=[tags] if isinstance(tags, str) else tags,
            ).save(Path(self.args.output_dir, "README.md"))

    def push_to_hub(self, commit_message: str | None = "End of training", *args, **kwargs):
        """Upload all that [`~BilevelOfflineRLTrainer.save_model`] writes; checkpoints and `training_args.bin` stay."""
        parent = super()
        return push_without_pickled_arguments(self, lambda: parent.push_to_hub(commit_message, *args, **kwargs))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        push_checkpoint(self, checkpoint_folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_state(Path(resume_from_checkpoint))
        if self.args.train_backbone:
            with trainability_kept(self.model.backbone):
                backbone = str(Path(resume_from_checkpoint, BACKBONE_FOLDER))
                super()._load_from_checkpoint(backbone, model=self.model.backbone)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.is_deepspeed_enabled:
            # DeepSpeed restores the wrapped model with its heads, and `_load_from_checkpoint` is not called.
            self._load_state(Path(checkpoint))
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_state(self, folder: Path) -> None:
        load_checkpoint_state(self, folder)
        if not self.is_deepspeed_enabled:
            self.model.primary.load_state_dict(ValueHeads.from_pretrained(folder).state_dict())
        if self.reweighter is not None:
            self.reweighter.head.load_state_dict(ReweightingHead.from_pretrained(folder).state_dict())
        elif self.args.scores_rows:
            self._fitted_head = ReweightingHead.from_pretrained(folder)

    # Optimizer

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            super().create_optimizer(model)
            split_groups_by_role(self.optimizer, self.model if model is None else model)
        return self.optimizer


def _checked_games(environment, eval_tasks):
    """Environment and tasks as given, a name resolved; wrong ones are refused now and not after hours of training."""
    if environment is None:
        if eval_tasks is not None:
            raise ValueError("`eval_tasks` needs an `environment` to be played in")
        return None, None
    from boost_trl.environments.base import Environment, make_env

    if isinstance(environment, str):
        environment = make_env(environment)
    elif not callable(environment) and not isinstance(environment, Environment):
        raise ValueError(
            f"`environment` is {environment!r}; give an Environment, a function that makes one, or a name for make_env"
        )
    if eval_tasks is not None and len(eval_tasks) == 0:
        raise ValueError("`eval_tasks` is empty; leave it out to play all tasks of the environment")
    return environment, eval_tasks


def _collate_indices(features: list[dict[str, int]]) -> dict[str, torch.Tensor]:
    return {"index": torch.tensor([feature["index"] for feature in features])}


def _all_tasks(environment) -> list:
    from boost_trl.environments.base import Environment, make_env

    if isinstance(environment, str):
        environment = make_env(environment)
    elif isinstance(environment, type) or not isinstance(environment, Environment):
        environment = environment()
    return environment.tasks()


def _named(eval_dataset) -> dict[str, Dataset]:
    if eval_dataset is None:
        return {}
    return dict(eval_dataset) if isinstance(eval_dataset, dict) else {"": eval_dataset}


def _check_datasets(**datasets) -> None:
    for name, dataset in datasets.items():
        if dataset is not None and not isinstance(dataset, Dataset):
            raise ValueError(
                f"`{name}` is a {type(dataset).__name__}; it must be a `datasets.Dataset`, because every row is read "
                "before training: load it without streaming, choose a split, or use `Dataset.from_list(rows)`"
            )
