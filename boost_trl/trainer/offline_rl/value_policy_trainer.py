"""`Trainer` of a language model with value heads: what there is to it beside the algorithm that trains it. It evaluates,
plays, extracts the policy, saves, resumes and uploads; which rows count, and for how much, is for its subclass to say."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub import CommitInfo
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerControl
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from boost_trl.data.template_arguments import shared_template_arguments
from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.data.trajectory_store import TrajectoryBatch, TrajectoryStore
from boost_trl.models.deepspeed_device import tell_deepspeed_the_device
from boost_trl.models.hidden_states import base_causal_lm, trainability_kept
from boost_trl.models.policy_files import BACKBONE_FOLDER
from boost_trl.models.policy_with_value_heads import PolicyWithValueHeads
from boost_trl.models.turn_end import policy_generation_config
from boost_trl.models.value_policy import ValuePolicy, save_plain_model
from boost_trl.trainer.bilevel_offline_rl_config import FREE_ON_RESUME, BilevelOfflineRLConfig
from boost_trl.trainer.common.base_model import base_model_record
from boost_trl.trainer.common.checkpoints import begin_checkpoint, explained_write_failure, incomplete, run_settings
from boost_trl.trainer.common.engines import (
    check_wrapper,
    gathered,
    is_partitioned,
    whole_model,
)
from boost_trl.trainer.common.fsdp import check_fsdp, is_sharded, reshard, whole_copy, without_parameters
from boost_trl.trainer.common.hub_upload import (
    push_from_checkpoint,
    push_without_pickled_arguments,
    put_pickled_arguments_aside,
)
from boost_trl.trainer.common.trackers import log_table
from boost_trl.trainer.common.weight_files import save_weight_files
from boost_trl.trainer.common.weights_dataset import push_weights_of
from boost_trl.trainer.offline_rl.backbone import tokenize_options
from boost_trl.trainer.offline_rl.checkpoint import TrainingState, load_state, save_policy, save_state, state_names
from boost_trl.trainer.offline_rl.checks import named_datasets
from boost_trl.trainer.offline_rl.data import RowNumbers, TrainingData, cache_states, collate_row_numbers
from boost_trl.trainer.offline_rl.divergence import explain_losses, explain_parameters
from boost_trl.trainer.offline_rl.games import checked_games, game_statistics, games_table, play_share
from boost_trl.trainer.offline_rl.model_card import IN_A_CHECKPOINT, TrainedPolicy, how_weighed, model_card
from boost_trl.trainer.offline_rl.parameter_average import ParameterAverage
from boost_trl.trainer.offline_rl.parameter_groups import split_groups_by_role
from boost_trl.trainer.offline_rl.policy import extracted_policy, load_reference
from boost_trl.trainer.offline_rl.token_losses import forward_token_losses
from boost_trl.trainer.offline_rl.unit_losses import unit_losses


logger = logging.getLogger(__name__)


class ValuePolicyTrainer(Trainer):
    """See the module. A subclass has `training_state`, `example_weights` and the statistics of its weights.

    Args:
        model (`PolicyWithValueHeads`): what is trained.
        args (`BilevelOfflineRLConfig`): configuration.
        data (`TrainingData`): training and validation rows, as the datasets have them and tokenised; an attribute.
        eval_dataset, environment, eval_tasks, kwargs: as of [`BilevelOfflineRLTrainer`] and `Trainer`.

    Attributes:
        embeddings (`torch.Tensor`, *optional*): of the training rows that are used, or their turns, where weights come from them.
    """

    embeddings: torch.Tensor | None = None
    control: TrainerControl

    _tag_names = ["boost_trl", "trl", "offline-rl", "bilevel"]

    def __init__(
        self,
        model: PolicyWithValueHeads,
        args: BilevelOfflineRLConfig,
        data: TrainingData,
        tokenizer: PreTrainedTokenizerBase,
        *,
        eval_dataset: Dataset | dict[str, Dataset] | None,
        environment,
        eval_tasks,
        **kwargs,
    ):
        if args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = False
        self.data = data
        self.parameter_average = ParameterAverage()
        self._tokenize_options = tokenize_options(model.backbone, args)
        self._environment, self._eval_tasks = checked_games(environment, eval_tasks)
        self._reference_model: PreTrainedModel | None = None
        self._form: PolicyWithValueHeads | None = None
        self._generation_config = policy_generation_config(tokenizer)
        shared = shared_template_arguments(data.train_dataset)
        self.chat_template_kwargs = {} if shared is None else shared
        if shared is None:
            logger.warning(
                "the training rows differ in `tools` or `chat_template_kwargs`: games are rendered with neither of them"
            )
        # Why what was saved last is no plain causal LM, `None` if it is one.
        self._why_not_plain: str | None = None
        self._said_why_not_plain: str | None = None
        tell_deepspeed_the_device()
        super().__init__(
            model=model,
            args=args,
            data_collator=collate_row_numbers,
            train_dataset=RowNumbers(data.num_training),
            # Trainer evaluates only what has a dataset; games need none.
            eval_dataset={} if eval_dataset is None and environment is not None else eval_dataset,
            processing_class=tokenizer,
            **kwargs,
        )
        check_wrapper(args)
        check_fsdp(getattr(self.accelerator.state, "fsdp_plugin", None))
        if (self.is_deepspeed_enabled or self.is_fsdp_enabled) and not is_partitioned(self.model):
            # They move the model when training begins; what is computed before would take the CPU.
            self.model.to(args.device)
        # A row's coefficient is normalised over the whole optimizer batch on all processes.
        self.loss_is_scaled_for_ga = True
        # φ reads the unmodified model; a frozen one, or what is under an adapter, is in no checkpoint.
        depends = (
            args.learns_weights or not args.train_backbone or base_causal_lm(model.backbone) is not model.backbone
        )
        self.base_model = base_model_record(model.backbone) if depends else None
        self._eval_stores = {
            name: self._make_eval_store(dataset, name) for name, dataset in named_datasets(eval_dataset).items()
        }

    def training_state(self) -> TrainingState:
        """State that a checkpoint holds beside the backbone and Trainer's own files."""
        raise NotImplementedError

    def example_weights(self) -> Dataset:
        """The weight of every training row, in the order of `train_dataset`."""
        raise NotImplementedError

    def weight_statistics(self) -> dict[str, float]:
        """The weights in a few numbers; empty when none are learned."""
        return {}

    # A model that an engine keeps in pieces

    def _remember_form(self) -> None:
        """Before training: keep what FSDP2's model is to be copied into."""
        if self.is_fsdp_enabled and self._form is None:
            self._form = without_parameters(self.model)

    @contextmanager
    def _whole(self) -> Iterator[PolicyWithValueHeads]:
        """The model as without an engine, to be looked at only; all processes have to enter together."""
        if is_sharded(self.model):
            yield whole_copy(self.model, self._form)
        else:
            with whole_model(self.model_wrapped):
                yield self.accelerator.unwrap_model(self.model_wrapped)

    def create_optimizer(self, model=None):
        if self.optimizer is None:
            super().create_optimizer(model)
            split_groups_by_role(self.optimizer, self.model if model is None else model)
        return self.optimizer

    # The mean over the last updates

    def _averaged_parameters(self) -> dict[str, nn.Parameter]:
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad and self.model.role_of(name) != "auxiliary"
        }

    def _begin_averaging(self, averaged_before: int) -> None:
        """Make room for the means, which hold `averaged_before` updates of this run already."""
        if self.parameter_average.count != averaged_before:
            # Means over updates that are not the last ones of this run.
            self.parameter_average.reset()
            if averaged_before:
                logger.warning(
                    f"{averaged_before} of the updates to average lie before the checkpoint, which did not average them: "
                    "the result is the mean over the remaining ones"
                )
        if self.args.average_last > 0:
            self.parameter_average.allocate(self._averaged_parameters())

    def use_averaged_parameters(self) -> None:
        """Make the mean over the last updates θ, as training does at its end."""
        self.parameter_average.apply_to(self._averaged_parameters())
        self._check_parameters()

    # Losses

    def _token_losses(
        self,
        model: nn.Module,
        batch: TrajectoryBatch,
        roles: tuple[str, ...],
        anchored: bool = False,
        token_weights: torch.Tensor | None = None,
    ) -> dict:
        return forward_token_losses(model, batch, roles, self.model.primary.config, self.args, anchored, token_weights)

    def _unit_losses(
        self, rows: np.ndarray, roles: tuple[str, ...], store: TrajectoryStore, batch_size: int
    ) -> np.ndarray:
        """ℓ of the units of `rows` of `store` under each role, without dropout, (len(roles), U); see `unit_losses`."""

        def losses_of(batch, roles):
            with self.compute_loss_context_manager():
                return self._token_losses(self.model_wrapped, batch, roles)

        self.model_wrapped.eval()
        losses = unit_losses(
            store,
            rows,
            roles,
            losses_of,
            batch_size=batch_size,
            normalization=self.args.loss_normalization,
            accelerator=self.accelerator,
        )
        reshard(self.model)
        self.model_wrapped.train()
        return losses

    def _check_losses(self, losses: list[tuple[int, float]] | None, moment: str) -> None:
        """Raise an error for the losses of a batch, if there are any, that are not all finite."""
        if losses is not None:
            with gathered(self.model.parameters()):
                error = explain_losses(moment, losses, self.data.name_of_row, self._trained_parameters())
            raise error

    def _check_parameters(self) -> None:
        with gathered(self.model.parameters()):
            error = explain_parameters(f"after policy update {self.state.global_step}", self._trained_parameters())
        if error is not None:
            raise error

    def _trained_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    # Evaluation

    def policy(self, beta: float | None = None, prior: str | None = None) -> ValuePolicy:
        """The extracted policy of θ as it stands, ready for `generate`. It shares the trainer's parameters; under ZeRO-3 and
        FSDP2 it is a whole copy of them, and all processes have to ask for it together."""
        with self._whole() as model:
            policy = self._shared_policy(model, beta, prior)
            if is_partitioned(self.model):
                policy.causal_lm, policy.value_heads = (
                    copy.deepcopy(policy.causal_lm),
                    copy.deepcopy(policy.value_heads),
                )
        return policy

    def _shared_policy(
        self, model: PolicyWithValueHeads, beta: float | None = None, prior: str | None = None
    ) -> ValuePolicy:
        prior = self.args.policy_prior if prior is None else prior
        if prior == "lm" and self._reference_model is None:
            self._reference_model = load_reference(self.args)
        return extracted_policy(
            model,
            self.processing_class,
            self._generation_config,
            beta=self.args.beta if beta is None else beta,
            prior=prior,
            reference=self._reference_model if prior == "lm" else None,
        )

    def _make_eval_store(self, dataset: Dataset, name: str) -> TrajectoryStore:
        name = "eval_dataset" if name == "" else f"eval_dataset[{name!r}]"
        rows = tokenize_trajectories(dataset, self.processing_class, name=name, **self._tokenize_options)
        store = TrajectoryStore(rows, self.processing_class.pad_token_id)
        if not self.args.train_backbone:
            with self._whole() as model, self.accelerator.main_process_first():
                cache_states(model.backbone, store, self.args)
        return store

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
            stores = {name: self._make_eval_store(rows, name) for name, rows in named_datasets(eval_dataset).items()}
        metrics = {}
        for name, store in stores.items():
            rows = np.arange(len(store))
            # Before training no engine gathers what `from_pretrained` has partitioned.
            with whole_model(self.model) if self.model_wrapped is self.model else nullcontext():
                losses = self._unit_losses(rows, ("primary",), store, self.args.per_device_eval_batch_size)[0]
            key = f"{metric_key_prefix}_{name}_loss" if name else f"{metric_key_prefix}_loss"
            metrics[key] = float(losses.mean())
        games = None
        if self._environment is not None:
            games = self._play()
            statistics = game_statistics(games, self.accelerator)
            metrics.update({f"{metric_key_prefix}_{name}": value for name, value in statistics.items()})
        self.log(metrics)
        if games is not None and self.args.log_completions:
            log_table(self, f"{metric_key_prefix}_games", games_table(games, self.state.global_step))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _play(self) -> list[dict[str, Any]]:
        """This process's share of the games."""
        self.model.eval()
        with self._whole() as model:
            games = play_share(
                self._shared_policy(model),
                self._environment,
                self._eval_tasks,
                self.args,
                tokenizer=self.processing_class,
                chat_template_kwargs=self.chat_template_kwargs,
                accelerator=self.accelerator,
            )
        self.model.train()
        return games

    def predict(self, *args, **kwargs):
        """Not supported: there is nothing to predict from a recorded trajectory; `policy()` acts, `evaluate()` judges."""
        raise NotImplementedError(
            "BilevelOfflineRLTrainer has no predict(); use policy() to act and evaluate() to judge"
        )

    # Saving

    def why_incomplete(self, checkpoint: Path) -> str | None:
        """Reason why this trainer cannot resume from a folder that was not written to its end; `None` if it can."""
        return incomplete(
            checkpoint,
            self.args,
            state_names(self.args),
            model_folder=BACKBONE_FOLDER,
            deepspeed=self.is_deepspeed_enabled,
            fsdp=self.is_fsdp_enabled,
        )

    def _save_checkpoint(self, model, trial) -> None:
        self._check_parameters()
        folder = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        with explained_write_failure(folder):
            if self.args.should_save:
                begin_checkpoint(folder, run_settings(self.args, FREE_ON_RESUME, self.base_model))
            super()._save_checkpoint(model, trial)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        folder, state = Path(output_dir if output_dir is not None else self.args.output_dir), self.training_state()
        save_policy(folder, state, self._generation_config, state_dict)
        self.save_example_weights(folder)
        self.processing_class.save_pretrained(folder)
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR):
            save_state(folder, state, self.model.state_dict() if state_dict is None else state_dict)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the policy: its backbone (or adapter), the heads, the example weights and the model card; outside of
        checkpoints also as a plain causal LM, where it folds into one."""
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        if self.is_deepspeed_enabled and self.deepspeed is None:
            # Trainer asks the engine, which comes with training.
            with whole_model(self.model):
                self._save(str(folder))
        else:
            super().save_model(output_dir, _internal_call)
        if folder.name.startswith(PREFIX_CHECKPOINT_DIR):
            self._why_not_plain = IN_A_CHECKPOINT
        else:
            self._save_plain_model(folder)
        if self.args.should_save:
            model_card(self._trained_policy()).save(folder / "README.md")
            if _internal_call and output_dir is None:
                # For a push: Trainer's upload takes the whole folder.
                put_pickled_arguments_aside(folder)

    def save_example_weights(self, output_dir: str | Path | None = None) -> None:
        """Save `example_weights.parquet` and, for `boost-trl analyze`, the rows of largest and smallest weight and, where
        there are synthetic rows, all embeddings.

        Args:
            output_dir (`str`, *optional*): a folder; `args.output_dir` by default.
        """
        if self.args.should_save:
            folder = Path(self.args.output_dir if output_dir is None else output_dir)
            of_rows = self.embeddings if self.args.weight_level == "trajectory" else None
            save_weight_files(folder, self.example_weights(), self.data.train_dataset, of_rows)

    def _save_plain_model(self, folder: Path) -> None:
        with self._whole() as model:
            if not self.args.should_save:
                return
            self._why_not_plain = save_plain_model(folder, self._shared_policy(model))
        if self._why_not_plain not in (None, self._said_why_not_plain):
            self._said_why_not_plain = self._why_not_plain
            logger.warning(f"{folder} holds a `ValuePolicy` and no plain causal LM: {self._why_not_plain}")

    def _trained_policy(self) -> TrainedPolicy:
        state = self.training_state()
        return TrainedPolicy(
            args=self.args,
            backbone=self.model.backbone,
            heads=self.model.primary.config,
            tokenizer=self.processing_class,
            chat_template_kwargs=self.chat_template_kwargs,
            hub_model_id=self.hub_model_id,
            why_not_plain=self._why_not_plain,
            tags=self._tag_names,
            num_rows=self.data.num_training,
            num_validation_rows=self.data.num_validation,
            num_updates=self.state.global_step,
            weight_statistics=self.weight_statistics(),
            has_reweighting_head=state.reweighting_head is not None,
            validated_report=None if state.validated is None else state.validated.report,
            log_history=self.state.log_history,
        )

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
                self._trained_policy(),
                model_name=model_name,
                dataset_name=dataset_name,
                tags=[tags] if isinstance(tags, str) else tags,
            ).save(Path(self.args.output_dir, "README.md"))

    def push_to_hub(self, commit_message: str | None = "End of training", *args, **kwargs):
        """Upload all that `save_model` writes; checkpoints and `training_args.bin` stay."""
        push = partial(super().push_to_hub, commit_message, *args, **kwargs)
        return push_without_pickled_arguments(self.args, push)

    def push_weights_to_hub(
        self, repo_id: str, *, dataset_name: str | None = None, private: bool | None = None, token: str | None = None
    ) -> CommitInfo | None:
        """Upload [`~BilevelOfflineRLTrainer.example_weights`] as a dataset of its own, by which others can filter the same rows.

        Its column `text` holds the first words of every row.

        Args:
            repo_id (`str`): `"namespace/name"` of the dataset, which is created if needed.
            dataset_name (`str`, *optional*): the training data, where it is on the Hub.
            private (`bool`, *optional*): visibility of a repository that is created; by default `args.hub_private_repo`.
            token (`str`, *optional*): Hub token; by default `args.hub_token`, else the stored login.

        Returns:
            [`~huggingface_hub.CommitInfo`]; `None` on all processes but the first.

        Raises:
            ValueError: if no weights were learned.
        """
        if not self.weight_statistics():
            raise ValueError("this trainer has learned no weights: train with `method` 'boost' or 'validated'")
        sentence = how_weighed(self.args)
        how = f"{sentence[0].upper()}{sentence[1:]}."
        return push_weights_of(self, repo_id, how, dataset_name, private, token)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        push_from_checkpoint(self, checkpoint_folder)

    # Resuming

    def _take_state(self, state: TrainingState) -> None:
        """Go on from a loaded state, whose parts that change in place have changed already."""
        raise NotImplementedError

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_state(Path(resume_from_checkpoint))
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # with the heads
        elif self.args.train_backbone:
            with trainability_kept(self.model.backbone):
                backbone = str(Path(resume_from_checkpoint, BACKBONE_FOLDER))
                super()._load_from_checkpoint(backbone, model=self.model.backbone)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.is_deepspeed_enabled:
            # DeepSpeed restores the wrapped model with its heads, and `_load_from_checkpoint` is not called.
            self._load_state(Path(checkpoint))
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_state(self, folder: Path) -> None:
        state = self.training_state()
        load_state(folder, state, self.args, parameters=not (self.is_deepspeed_enabled or self.is_fsdp_enabled))
        self._take_state(state)
