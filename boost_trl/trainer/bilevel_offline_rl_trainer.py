"""[`BilevelOfflineRLTrainer`]: offline RL on trajectories of mixed quality, weighed by what helps a validation set.

How a row's `rewards` become a loss, room by room; files without a folder are in `offline_rl/`:

1. `boost_trl/data/tokenization` checks the row, marks the tokens of its actions and gives each its reward, return and
   discount; `data` keeps training and validation rows in one store. `backbone` loads the model and adds value heads.
2. `validated_reweighting` weighs the rows before training (`method="validated"`); `reweighter` holds the φ that is learned
   along with the policies (`method="boost"`). `schedule` says which phase a policy update belongs to.
3. The data loader's sampler, which under `method="validated"` draws by weight (`weighted_batches`), gives row numbers.
   `get_batch_samples` takes those of a whole policy update, of all processes, and plans it: an `optimizer_batch` of rows and
   coefficients. `compute_loss` runs the model on one of its micro-batches and adds up coefficient times
   `token_losses`, whose equations are in `boost_trl/losses`.
4. `_after_policy_update` moves target heads, copies θ ← ψ (phase 2), updates φ by the `unit_losses` under both
   policies (phase 4) and averages. `value_policy_trainer`, the base class, evaluates, plays, saves and resumes.
"""

import copy
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType, broadcast_object_list, gather_object
from datasets import Dataset
from torch import nn
from torch.utils.data import Sampler
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

from boost_trl.data.chat_templates import with_action_marks
from boost_trl.data.state_cache import unit_embeddings
from boost_trl.losses import turn_weights
from boost_trl.models.reweighting_head import ReweightingHead
from boost_trl.models.value_heads import ValueHeads
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.common.checkpoints import checkpoint_to_resume
from boost_trl.trainer.common.endless_sampler import EndlessSampler
from boost_trl.trainer.common.engines import (
    cast_like_partitioned,
    check_deepspeed_config,
    check_engine_is_new,
    forget_gradients,
    gathered,
    whole_model,
)
from boost_trl.trainer.common.training_length import planned_updates, updates_per_epoch
from boost_trl.trainer.common.weight_logging import WeightLogging
from boost_trl.trainer.offline_rl.backbone import load_model, tokenize_options, with_value_heads
from boost_trl.trainer.offline_rl.callback import AroundUpdates
from boost_trl.trainer.offline_rl.checkpoint import TrainingState
from boost_trl.trainer.offline_rl.checks import as_config, check_datasets, check_unused
from boost_trl.trainer.offline_rl.data import TrainingData, cache_folder_of, cache_states
from boost_trl.trainer.offline_rl.divergence import UpdateLosses
from boost_trl.trainer.offline_rl.example_weights import collapse_warning, weight_statistics, weight_table
from boost_trl.trainer.offline_rl.metrics import RunningMeans, add_losses, gradient_norms
from boost_trl.trainer.offline_rl.optimizer_batch import OptimizerBatch, bilevel_batch, mixed_batch
from boost_trl.trainer.offline_rl.parameter_groups import FrozenGroups, freeze_all_but, synchronize_primary
from boost_trl.trainer.offline_rl.reweighter import Reweighter, fitted_reweighting_head, new_reweighting_head
from boost_trl.trainer.offline_rl.schedule import BilevelSchedule, Phase, check_iterations, check_max_steps
from boost_trl.trainer.offline_rl.token_losses import sum_by_trajectory
from boost_trl.trainer.offline_rl.validated_reweighting import ValidatedWeights, check_folds, drawn_batches, score_rows
from boost_trl.trainer.offline_rl.value_head_initialization import initialize_value_heads, reference_head
from boost_trl.trainer.offline_rl.value_policy_trainer import ValuePolicyTrainer
from boost_trl.trainer.offline_rl.weighted_batches import MixedBatchSampler, WeightedBatches


logger = logging.getLogger(__name__)

_SEED_OFFSETS = {"validation": 1, "reweighting": 2}


class BilevelOfflineRLTrainer(ValuePolicyTrainer):
    """Offline RL for multi-turn agents with learned trajectory weights ([B], arXiv 2605.24743).

    Args:
        model (`str`, `PreTrainedModel` or `PeftModel`): Causal LM; its hidden states feed the value heads.
        args ([`BilevelOfflineRLConfig`], *optional*): Configuration; default values if `None`.
        train_dataset (`Dataset`): Offline and synthetic rows in the trajectory format (see
            `boost_trl.data.trajectories`).
        eval_dataset (`Dataset` or `dict[str, Dataset]`, *optional*): Held-out trajectories; `evaluate()` reports their
            mean loss.
        processing_class (`PreTrainedTokenizerBase`, *optional*): Fast tokenizer; loaded with the model by default.
        callbacks, optimizer_cls_and_kwargs, peft_config, quantization_config (*optional*): As in [`~trl.SFTTrainer`].
        validation_dataset (`Dataset`, keyword-only): The small trusted set of the upper level. Required unless
            `args.method="vanilla"`.
        environment (`Environment` or a callable that makes one, keyword-only, *optional*): `evaluate()` plays it.
        eval_tasks (`list[Task]`, keyword-only, *optional*): The tasks to play; all tasks of `environment` by default.

    The remaining arguments of `SFTTrainer` keep their place but have no meaning here and raise when given.

    Raises:
        ValueError: for a bad row, a missing validation dataset, or an argument that does not apply; before any training.
    """

    # What training changes; `training_state` says what a checkpoint keeps of it.
    optimizer_batch: OptimizerBatch
    reweighter: Reweighter | None = None
    validated: ValidatedWeights | None = None
    num_tokens = 0
    _mixed_batches: MixedBatchSampler | None = None
    _within_rows: np.ndarray | None = None
    _fitted_head: ReweightingHead | None = None
    # Of the weights of all rows; they change in phase 4 only.
    _logged_statistics: dict[str, float] | None = None
    _has_collapsed = False

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
        unused = {"data_collator": data_collator, "compute_loss_func": compute_loss_func}
        unused |= {"compute_metrics": compute_metrics, "formatting_func": formatting_func}
        check_unused(optimizers, preprocess_logits_for_metrics=preprocess_logits_for_metrics, **unused)
        args = as_config(args)
        check_deepspeed_config(args)
        check_datasets(args, train_dataset, validation_dataset, eval_dataset)
        model, tokenizer = load_model(model, args, processing_class, quantization_config, peft_config)
        tokenizer = with_action_marks(tokenizer)
        data = TrainingData(
            train_dataset, validation_dataset, tokenizer, tokenize_options(model, args), args.weight_level
        )
        check_folds(args, data.num_validation)
        super().__init__(
            with_value_heads(model, args, data.training),
            args,
            data,
            tokenizer,
            eval_dataset=eval_dataset,
            environment=environment,
            eval_tasks=eval_tasks,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
        )
        self._means, self._update_losses = RunningMeans(), UpdateLosses(self.accelerator)
        self.samplers = {
            "validation": EndlessSampler(max(1, data.num_validation), args.seed + _SEED_OFFSETS["validation"]),
            "reweighting": EndlessSampler(data.num_training, args.seed + _SEED_OFFSETS["reweighting"]),
        }
        self.add_callback(
            AroundUpdates(
                before_training=self._begin_run,
                before_update=self._before_policy_update,
                after_update=self._after_policy_update,
                after_training=self._end_run,
            )
        )
        if args.log_weights and args.uses_validation:
            self.add_callback(WeightLogging(self))
        if args.is_bilevel:
            check_iterations(planned_updates(args, data.num_training), args.auxiliary_steps, args.primary_steps)
        self._prepare()

    # Before training

    def _prepare(self) -> None:
        """Compute the rows' states and embeddings under the unmodified backbone, and value heads that start from
        it."""
        args, data, model = self.args, self.data, self.model
        with whole_model(self.model_wrapped):
            with self.accelerator.main_process_first():
                if not args.train_backbone:
                    cache_states(model.backbone, data.store, args)
                if args.learns_weights or args.scores_rows:
                    self.embeddings = unit_embeddings(model.backbone, data.training, cache_folder_of(args))
                if args.learns_weights:
                    head = new_reweighting_head(self.embeddings, args)
                    shares = data.training.units.shares
                    self.reweighter = Reweighter(head, self.embeddings, shares, args.reweighting_learning_rate)
            options = {"init": args.value_head_init, "cql_weight": args.cql_weight, "seed": args.seed}
            initialize_value_heads(model.primary, model.backbone, data.training, **options)
            if model.auxiliary is not None:
                model.auxiliary.copy_from(model.primary)

    def _score_rows(self) -> None:
        """Weights for `method="validated"`, from the states of the unmodified backbone, which are then let go."""
        args, data = self.args, self.data
        store = copy.copy(data.store)
        with whole_model(self.model_wrapped), self.accelerator.main_process_first():
            if store.states is None:
                cache_states(self.model.backbone, store, args)
            prior = reference_head(self.model.backbone, store) if args.policy_prior == "lm" else None
        per_epoch = updates_per_epoch(args, data.num_training)
        validated = score_rows(
            copy.deepcopy(self.model.primary).to(args.device),
            store,
            data.num_training,
            args,
            updates=planned_updates(args, data.num_training),
            rows_per_update=data.num_training / per_epoch / self.accelerator.num_processes,
            prior=prior,
            progress=self.is_world_process_zero() and not args.disable_tqdm,
        )
        if self.accelerator.num_processes > 1:
            # Every process did the same work; the last digits may still differ between devices.
            validated = broadcast_object_list([validated])[0]
        self.validated = validated
        self._fitted_head = fitted_reweighting_head(self.embeddings, validated.log_weights(), args)
        if args.should_save:
            validated.save_report(Path(args.output_dir))
        if self.is_world_process_zero():
            # As Trainer prints its logs; a logger would hide it at the usual level.
            tqdm.write(validated.verdict())

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        check_engine_is_new(self.deepspeed, self.model)
        resume_from_checkpoint = checkpoint_to_resume(
            resume_from_checkpoint, self.args.output_dir, self.why_incomplete
        )
        # Before the model is wrapped; a checkpoint brings its weights along.
        if self.args.scores_rows and self.validated is None and not resume_from_checkpoint:
            self._score_rows()
        cast_like_partitioned(self.model)
        self._remember_form()
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _begin_run(self) -> None:
        """Forget what an earlier run of this trainer, or the shorter run that a checkpoint comes from, has left behind."""
        args = self.args
        if args.is_bilevel:
            # `args` may have changed since they were checked.
            check_max_steps(self.state.max_steps, args.auxiliary_steps, args.primary_steps)
        self._means.clear()
        self._update_losses.clear()
        self._logged_statistics = None
        self._has_collapsed = False
        if self.state.global_step == 0:
            self.num_tokens = 0
            for sampler in self.samplers.values():
                sampler.position = 0
        self._begin_averaging(self.schedule.averaged_before(self.state.global_step, args.average_last))
        if self._mixed_batches is not None:
            # On several processes Trainer's `set_epoch` gets no further than the batches that a resumed run skips.
            self._mixed_batches.set_epoch(self.state.global_step // self._mixed_batches.steps_per_epoch)
        if self.validated is not None:
            self._within_rows = self.data.training.units.within_rows(self.validated.weights)
            if self.state.global_step == 0:
                self.log(self.validated.summary())
        self._frozen_groups = FrozenGroups(self.optimizer)

    def _end_run(self) -> None:
        self.use_averaged_parameters()
        self._frozen_groups.remove()

    # A policy update: planned as a whole, then summed up micro-batch by micro-batch

    def _get_train_sampler(self, train_dataset=None) -> Sampler | None:
        if self.args.method != "validated":
            return super()._get_train_sampler(train_dataset)
        args, processes = self.args, self.accelerator.num_processes
        size = self._train_batch_size * (1 if self.accelerator.split_batches else processes)
        last = "dropped" if args.dataloader_drop_last else "filled" if processes > 1 else "short"
        self._mixed_batches = MixedBatchSampler(
            self._weighted_batches, self.data.num_training, size, args.gradient_accumulation_steps, last
        )
        return self._mixed_batches

    def _weighted_batches(self) -> WeightedBatches:
        return drawn_batches(self.args, self.validated, self.data, self.state.max_steps)

    @property
    def schedule(self) -> BilevelSchedule:
        """The phases of this run; known once training has started."""
        return BilevelSchedule.of(self.args, self.state.max_steps)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Plans the next policy update from the row numbers of its micro-batches, which are then but numbers in the plan."""
        if self.control.should_training_stop:  # a finished run
            return [], None
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        mine = [sample["index"].tolist() for sample in samples]
        everyone = gather_object([mine]) if self.accelerator.num_processes > 1 else [mine]
        self.optimizer_batch = self._plan([np.asarray(rows) for of_process in everyone for rows in of_process])
        self.num_tokens += int(self.data.store.input_lengths[self.optimizer_batch.rows].sum())
        roles = ("backbone", self.optimizer_batch.role)
        freeze_all_but(self.optimizer, roles)
        forget_gradients(p for name, p in self.model.named_parameters() if self.model.role_of(name) not in roles)
        first = sum(map(len, everyone[: self.accelerator.process_index]))
        return [{"micro_batch": first + number} for number in range(len(mine))], None

    def _plan(self, micro_batches: list[np.ndarray]) -> OptimizerBatch:
        """The policy update of these rows, of all processes; the same on each of them."""
        step, schedule, data = self.state.global_step, self.schedule, self.data
        if self.args.method == "validated":
            return mixed_batch(
                micro_batches,
                data.num_training,
                data.store.units,
                normalization=self.args.loss_normalization,
                within_rows=self._within_rows,
            )
        rows = np.concatenate(micro_batches)
        units = data.store.units.of_rows(rows)
        phase = schedule.phase(step)
        weights = data.store.units.shares[units] / len(rows)
        if self.reweighter is not None:
            weights = self.reweighter.weights(units).numpy()
        validation = np.empty(0, dtype=np.int64)
        if phase is Phase.PRIMARY:
            count = self.args.validation_rows(len(micro_batches), len(rows))
            validation = np.asarray(self.samplers["validation"].take(count)) + data.num_training
        return bilevel_batch(
            micro_batches,
            weights,
            validation,
            data.store.units,
            phase=phase,
            alpha=schedule.alpha(step) if phase is Phase.PRIMARY else 1.0,
            normalization=self.args.loss_normalization,
        )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """This process's part of the optimizer batch's objective, times the number of processes (gradients are averaged)."""
        plan = self.optimizer_batch
        micro_batch = plan.micro_batches[inputs["micro_batch"]]
        batch = self.data.store.collate(micro_batch.rows).to(self.args.device)
        # Gradients of the other policy's heads, all zero, cost as much memory as its parameters: only DDP waits for them.
        others = (DistributedType.NO, DistributedType.DEEPSPEED, DistributedType.FSDP)
        anchored = self.accelerator.distributed_type not in others
        coefficients = torch.as_tensor(micro_batch.coefficients, dtype=torch.float32, device=self.args.device)
        token_weights = coefficients[batch.unit]
        output = self._token_losses(model, batch, (plan.role,), anchored, token_weights)
        losses = output[plan.role]
        weighted = sum_by_trajectory(token_weights * losses["loss"], batch)
        self._update_losses.add(micro_batch.rows, weighted)
        add_losses(self._means, micro_batch, weighted, losses, plan.alpha)
        if self.args.is_bilevel:
            share = micro_batch.training_share
            self._means.add("penalty_alpha", self.schedule.alpha(self.state.global_step) * share, share)
        loss = weighted.sum() + output["anchor"] if anchored else weighted.sum()
        return loss * self.accelerator.num_processes

    def _before_policy_update(self) -> None:
        self._check_losses(self._update_losses.take(), f"before policy update {self.state.global_step + 1}")
        # DeepSpeed has stepped already, and a process sees the gradients of its own partitions at most.
        is_logged = self.state.logging_steps >= 1 and (self.state.global_step + 1) % self.state.logging_steps == 0
        if is_logged and not self.is_deepspeed_enabled:
            for name, norm in gradient_norms(self.optimizer).items():
                self._means.add(name, norm, 1.0)

    def _after_policy_update(self) -> None:
        schedule, step = self.schedule, self.state.global_step - 1
        heads: ValueHeads = getattr(self.model, self.optimizer_batch.role)
        if self.args.algorithm == "ilql" and self.args.target_update_rate is not None:
            with gathered(heads.parameters()):
                heads.update_targets(self.args.target_update_rate)
        if schedule.synchronizes_after(step):
            synchronize_primary(self.model, self.optimizer)
        if self.reweighter is not None and schedule.reweights_after(step):
            for _ in range(self.args.reweighting_steps):
                self._update_reweighting_head(self.reweighter, step)
        if schedule.averages_after(step, self.args.average_last):
            self.parameter_average.add(self._averaged_parameters())
        # Whoever looks at the model between updates (evaluation, saving, callbacks) means θ.
        self.model.use_adapter_of("primary")

    @torch.enable_grad()
    def _update_reweighting_head(self, reweighter: Reweighter, step: int) -> None:
        """Phase 4 on a fresh optimizer batch: every process computes its share of the gaps, all take the same step."""
        processes, batch_size = self.accelerator.num_processes, self.args.per_device_train_batch_size
        count = batch_size * self.args.gradient_accumulation_steps * processes
        rows = np.asarray(self.samplers["reweighting"].take(count))
        units = self.data.store.units.of_rows(rows)
        losses = self._unit_losses(rows, ("primary", "auxiliary"), self.data.store, batch_size)
        if not np.isfinite(losses).all():
            rows_of_units = self.data.store.units.rows[units].tolist()
            self._check_losses(
                list(zip(rows_of_units, losses.sum(axis=0).tolist())), f"after policy update {step + 1}"
            )
        gaps = torch.from_numpy(losses[0] - losses[1]).float()
        alpha = self.args.reweighting_alpha
        alpha = self.schedule.alpha(step) if alpha is None else alpha
        objective = reweighter.update(units, gaps, alpha)
        self._logged_statistics = None
        self._means.add("reweighting_objective", objective / processes, 1.0 / processes)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._means:
            logs.update(self._means.take(self.accelerator))
            logs["num_tokens"] = self.num_tokens
            if self.args.is_bilevel:
                # Of the last update; a mean over both phases would name one that there is not.
                logs["phase"] = {Phase.AUXILIARY: 1, Phase.PRIMARY: 3}[self.optimizer_batch.phase]
            if self._logged_statistics is None:
                self._logged_statistics = self.weight_statistics()
                warning = collapse_warning(self._logged_statistics, self.data.num_training)
                if warning is not None and not self._has_collapsed:
                    self._has_collapsed = True
                    logger.warning(warning)
            logs.update(self._logged_statistics)
        if "train_runtime" in logs and self.validated is not None:
            logs["scoring_runtime"] = self.validated.report["seconds"]
        super().log(logs, start_time)

    # Results

    @property
    def reweighting_head(self) -> ReweightingHead | None:
        """w_φ, when weights are learned; for `method="validated"` fitted to ln w, so that it gives the relative weight
        of rows that were never scored."""
        return self._fitted_head if self.reweighter is None else self.reweighter.head

    @property
    def validated_report(self) -> dict[str, Any] | None:
        """Report of validated reweighting, its decision and why (see `validated_weights`); known once training has
        started."""
        return None if self.validated is None else self.validated.report

    def _scores_and_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Of the units of the training rows that are used, (U,) each; the weights sum to one."""
        if self.validated is not None:
            return self.validated.scores, self.validated.weights
        shares = torch.from_numpy(self.data.training.units.shares)
        scores = torch.zeros(len(shares)) if self.reweighter is None else self.reweighter.scores().cpu()
        return scores.numpy(), turn_weights(scores.double(), shares).numpy()

    def weight_statistics(self) -> dict[str, float]:
        """n_eff, entropy and largest weight (times N) of the softmax over the whole training set, and the mean weight (times N)
        by `source`; see `weight_statistics`. Empty when weights are not learned."""
        if self.reweighter is None and self.validated is None:
            return {}
        return weight_statistics(self._scores_and_weights()[1], self.data.training.units, self.data.sources)

    def example_weights(self) -> Dataset:
        """The weight of every training row, in the order of `train_dataset`.

        Returns:
            `Dataset` with `index`, `weight` (N·w̃, mean 1 over the rows that are used; 0 for a row without a whole action
            within `max_length`), `score` (w_φ, or f for `method="validated"`; `None` for such a row), `text` (the row's
            first words), `return` (the sum of its rewards), and `source`, `category` and other kinds of row where known. With
            `weight_level="turn"` weight and score are the means of the row's turns, each by its share of the row's action
            tokens, and `turn_weights` lists the turns' weights, what each turn's loss is multiplied by beside one of equal
            weights: one per assistant turn that fits into `max_length`, in order.
        """
        data = self.data
        return weight_table(data.train_dataset, data.training, *self._scores_and_weights(), data.first_words)

    # Resuming

    def training_state(self) -> TrainingState:
        return TrainingState(
            model=self.model,
            average=self.parameter_average,
            samplers=self.samplers,
            data_fingerprint=self.data.fingerprint,
            num_tokens=self.num_tokens,
            base_model=self.base_model,
            reweighter=self.reweighter,
            validated=self.validated,
            fitted_head=self._fitted_head,
        )

    def _take_state(self, state: TrainingState) -> None:
        self.num_tokens, self.validated, self._fitted_head = state.num_tokens, state.validated, state.fitted_head
