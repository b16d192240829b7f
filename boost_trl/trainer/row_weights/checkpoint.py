"""Report and files of learned weights: their table, the files beside the model, and the state that a checkpoint holds."""

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub import CommitInfo
from safetensors.torch import load_file, save_file
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from boost_trl.hidden_tokens import tokens_kept_out
from boost_trl.selection import Selector, WeightConfidence, weight_confidence
from boost_trl.selection.selector import CONFIG_NAME, WEIGHTS_NAME
from boost_trl.trainer.common.base_model import check_base_model
from boost_trl.trainer.common.checkpoint_error import CheckpointError
from boost_trl.trainer.common.checkpoints import (
    begin_checkpoint,
    check_settings,
    checkpoint_to_resume,
    explained_write_failure,
    incomplete,
    run_settings,
)
from boost_trl.trainer.common.hub_upload import (
    push_from_checkpoint,
    push_without_pickled_arguments,
    put_pickled_arguments_aside,
)
from boost_trl.trainer.common.weight_files import save_weight_files
from boost_trl.trainer.common.weights_dataset import push_weights_of
from boost_trl.trainer.row_weights.model_card import completed_card, how_weighed
from boost_trl.trainer.row_weights.numbered_rows import NumberedRows
from boost_trl.trainer.row_weights.pool import Pool, StreamedPool
from boost_trl.trainer.row_weights.results import (
    CONFIDENCE_NAME,
    DEFAULT_WEIGHT_COLUMN,
    MOST_OF_POOL,
    AnswerTokens,
    sample,
    select_top_rows,
    selector_metrics,
)
from boost_trl.trainer.row_weights.selector_step import SelectorStep


STATE_NAME = "bilevel_state.safetensors"


class LearnedWeights(NumberedRows):
    """Part of a TRL trainer that tells, saves and restores the weights of `selector`. The trainer says what else it learns
    ([`_learned_parts`]) and learns it; where `selector` is `None`, files and logs are TRL's.
    """

    _free_on_resume: tuple[str, ...] = ()  # settings that a resumed run may change

    selector: Selector | None = None
    weight_confidence: WeightConfidence | None = None
    _selector_step: SelectorStep  # where weights are learned
    _trusted: Dataset | None = None  # prepared rows that nothing trains on
    num_validation_rows = 0
    # Where checkpoints hold an adapter alone.
    _base_model: dict[str, str] | None = None
    _answer_tokens: AnswerTokens | None = None
    _state_at_start: dict[str, torch.Tensor] | None = None

    def _learned_parts(self) -> list:
        """Parts with a `state` for an exact continuation, beside the model and the selector's logits."""
        raise NotImplementedError

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
        pool, selector = self.pool, self.selector
        if pool is None or (selector is None and isinstance(pool, StreamedPool)):
            raise ValueError("this trainer has no example weights: give it a `validation_dataset`")
        if selector is None:
            return pool.table(torch.ones(pool.num_examples), torch.zeros(pool.num_examples))
        weights = selector.weights()
        if self.args.weight_scale == "simplex":
            weights = weights * pool.num_examples
        return pool.table(weights, selector.logits())

    def export_selected(self, dataset: Dataset, top_fraction: float = 1.0) -> Dataset:
        """The rows of largest weight, ready for another run.

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
        if self.selector is not None and self.pool is not None and self.model.training:
            for name, value in selector_metrics(self.selector, self.pool.labels, self._answer_tokens).items():
                self._metrics["train"][name] = [value]
        super().log(logs, start_time)

    def measure_confidence(self) -> WeightConfidence | None:
        """Confidence in the weights: where trusted rows that nothing trained on rank among up to 512 rows of the pool
        by the losses that weights are learned from. Every process has to call it.

        Returns:
            [`~boost_trl.selection.WeightConfidence`] or `None`: `None` without such rows, without learned weights, and for
            streaming data.
        """
        if self._trusted is None:
            return None
        pool = sample(self._remove_unused_columns(self.train_dataset), MOST_OF_POOL, self.args.seed)
        trusted, pool = (
            self._selector_step.losses_of(rows, self.collator_with_ids(), self._train_batch_size)[1]
            for rows in (self._trusted, pool)
        )
        if len(pool) and np.isfinite([*trusted, *pool]).all():  # else training says what is wrong
            self.weight_confidence = weight_confidence(trusted, pool)
        return self.weight_confidence

    # Files

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if not self.args.should_save:
            return
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        if _internal_call and output_dir is None:  # for a push: the pickled arguments stay here
            put_pickled_arguments_aside(folder)
        if self.selector is not None:
            self.selector.save_pretrained(folder)
            self.save_example_weights(folder)
            if self.weight_confidence is not None:
                text = json.dumps(self.weight_confidence.to_dict(), indent=2)
                (folder / CONFIDENCE_NAME).write_text(text + "\n")

    def save_example_weights(self, output_dir: str | Path | None = None) -> None:
        """Save `example_weights.parquet` and, for `boost-trl analyze`, the rows of largest and smallest weight.

        Args:
            output_dir (`str`, *optional*): a folder; `args.output_dir` by default.
        """
        if self.args.should_save:
            dataset = self.pool.original if isinstance(self.pool, Pool) else None
            folder = Path(self.args.output_dir if output_dir is None else output_dir)
            save_weight_files(folder, self.example_weights(), dataset)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        with tokens_kept_out(self.args):
            super()._save(output_dir, state_dict)

    def push_to_hub(self, *args, **kwargs):
        """As [`~transformers.Trainer.push_to_hub`], without the pickle `training_args.bin`."""
        push = partial(super().push_to_hub, *args, **kwargs)
        return push_without_pickled_arguments(self.args, push)

    def push_weights_to_hub(
        self, repo_id: str, *, dataset_name: str | None = None, private: bool | None = None, token: str | None = None
    ) -> CommitInfo | None:
        """Upload [`~LearnedWeights.example_weights`] as a dataset of its own, by which others can filter the same rows.

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
        if self.selector is None:
            raise ValueError("this trainer has learned no weights: give it a `validation_dataset`")
        how = how_weighed(self.selector, self.num_validation_rows, self.selection_report)
        return push_weights_of(self, repo_id, how, dataset_name, private, token)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        push_from_checkpoint(self, checkpoint_folder)

    def _save_epoch_weights(self) -> None:
        if self.is_world_process_zero():
            path = Path(self.args.output_dir, "example_weights", f"epoch-{math.ceil(self.state.epoch or 0)}.parquet")
            path.parent.mkdir(parents=True, exist_ok=True)
            self.example_weights().to_parquet(path)

    def why_incomplete(self, checkpoint: Path) -> str | None:
        """Reason why this trainer, with learned weights, cannot resume from a folder that was not written to its end; `None`
        if it can.
        """
        engines = {"deepspeed": self.is_deepspeed_enabled, "fsdp": self.is_fsdp_enabled}
        names = [STATE_NAME, WEIGHTS_NAME, CONFIG_NAME]
        if not self.is_fsdp_enabled:  # with a sharded model Trainer saves no tokenizer
            names.append(TOKENIZER_CONFIG_FILE)
        return incomplete(checkpoint, self.args, names, **engines)

    def _checkpoint_to_resume(self, resume_from_checkpoint: str | bool | None) -> str | None:
        """The folder that is meant, which is whole and of a run with this objective."""
        folder = checkpoint_to_resume(resume_from_checkpoint, self.args.output_dir, self.why_incomplete)
        if folder is not None:
            check_settings(Path(folder), run_settings(self.args, self._free_on_resume))
            check_base_model(Path(folder), self._base_model)
        return folder

    def _save_checkpoint(self, model, trial):
        folder = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        with explained_write_failure(folder):
            if self.selector is not None and self.args.should_save:
                begin_checkpoint(folder, run_settings(self.args, self._free_on_resume, self._base_model))
            super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.selector is not None and self.args.should_save:
            save_file(self._bilevel_state(), Path(output_dir, STATE_NAME))

    def _bilevel_state(self) -> dict[str, torch.Tensor]:
        """State of all that is learned and drawn beside the model and the selector's logits."""
        return {name: value for part in self._learned_parts() for name, value in part.state().items()}

    def _load_bilevel_state(self, state: dict[str, torch.Tensor]) -> None:
        for part in self._learned_parts():
            part.load_state(state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint, STATE_NAME)
        if self.selector is None:
            if path.is_file():
                raise CheckpointError(
                    f"{checkpoint} was written with learned weights, and this trainer has no `validation_dataset`; give "
                    "it one to continue, or start a new run with the checkpoint as `model`"
                )
            return
        try:
            self.selector.resume_from(checkpoint)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint}: {error}") from error
        self._load_bilevel_state(load_file(path))

    def _forget_failed_attempt(self) -> None:
        """Reset what is learned beside the model, so that every attempt at a batch size starts alike."""
        selector = self._selector_step.selector
        if self._state_at_start is None:
            state = selector.state_dict() | self._bilevel_state()
            self._state_at_start = {name: value.clone() for name, value in state.items()}
            return
        own = selector.state_dict().keys()
        selector.load_state_dict({name: self._state_at_start[name] for name in own})
        self._load_bilevel_state(self._state_at_start)
        self._metrics["train"].clear()

    def create_model_card(self, model_name=None, dataset_name=None, tags=None):
        super().create_model_card(model_name=model_name, dataset_name=dataset_name, tags=tags)
        path = Path(self.args.output_dir, "README.md")
        if self.selector is not None and self.is_world_process_zero():
            card = completed_card(
                path.read_text(encoding="utf-8"),
                self.selector,
                self.num_validation_rows,
                self.state.log_history,
                self.weight_confidence,
                self.hub_model_id,
                path.parent,
                self.selection_report,
            )
            path.write_text(card, encoding="utf-8")
