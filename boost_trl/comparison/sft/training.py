"""Training one method of a comparison of supervised fine-tuning, and what it gave."""

import time
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, concatenate_datasets
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from boost_trl.comparison.cell_files import save_cell_files
from boost_trl.comparison.each_update import EachUpdate
from boost_trl.comparison.results import Result
from boost_trl.comparison.sft.exact_answers import exact_answers
from boost_trl.comparison.sft.experiment import SFTExperiment
from boost_trl.comparison.sft.methods import SFTMethod
from boost_trl.selection.auc import weights_auc
from boost_trl.selection.tempering import effective_sample_size
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.common.endless_sampler import EndlessSampler
from boost_trl.trainer.common.training_length import planned_updates
from boost_trl.trainer.common.weight_files import EXAMPLE_WEIGHTS_NAME
from boost_trl.trainer.row_weights.results import DEFAULT_WEIGHT_COLUMN
from boost_trl.trainer.sft.evaluation import mean_nll_per_row


# Validation rows where they are prepared beside the pool, and not packed with it.
_TRUSTED = "to train on"


def training_rows(method: SFTMethod, experiment: SFTExperiment, needed: Path | None) -> Dataset:
    """The pool as the method sees it.

    Args:
        method (`SFTMethod`): which.
        experiment (`SFTExperiment`): with the pool.
        needed (`Path`, *optional*): folder of the run whose weights the method takes.

    Raises:
        ValueError: if that run has not been made.
    """
    if method.known_good:
        return experiment.pool.filter(lambda row: row["is_good"])
    if method.needs is None:
        return experiment.pool
    assert needed is not None, "the method needs another's weights"
    path = needed / EXAMPLE_WEIGHTS_NAME
    if not path.is_file():
        raise ValueError(f"method '{method.name}' trains with the weights of '{method.needs}': run that one first")
    return experiment.pool.add_column(DEFAULT_WEIGHT_COLUMN, pd.read_parquet(path)["weight"].tolist())


def train_and_evaluate(
    method: SFTMethod,
    experiment: SFTExperiment,
    pool: Dataset,
    options: dict[str, Any],
    folder: Path,
    seed: int,
    keeps_model: bool = True,
    advance: Callable[[], object] = lambda: None,
) -> Result:
    """Train `method` in `folder` and evaluate it.

    Args:
        method (`SFTMethod`): which.
        experiment (`SFTExperiment`): model and data.
        pool (`Dataset`): what `training_rows` returns.
        options (`dict`): fields of [`BilevelSFTSelfRefineConfig`] that all methods share.
        folder (`Path`): gets what training saves.
        seed (`int`): of training.
        keeps_model (`bool`, *optional*, defaults to `True`): save the model; the weights are saved in any case.
        advance (`Callable`, *optional*): called after each update.

    Returns:
        `Result`: `eval_loss` is that of the trusted evaluation rows. Its metrics are `clean_eval_loss`; `loss_auc`, the AUC
        of minus the rows' final losses, what ranking them by the trained model alone would give (`None` for packed rows);
        `exact_answers`, the share of greedy answers that are right, where the experiment asks for them; `eval_losses` and
        `holdout_losses`, one per trusted row of these sets; and of the trainer `selection_report` and `weight_confidence`.
    """
    filtering = 0.0
    if method.lowest_losses is not None:
        pool, filtering = _rows_of_lowest_loss(method.lowest_losses, experiment, pool, options, folder, seed)
    trainer = (trl_trainer if method.is_trl else _trainer)(method, experiment, pool, options, folder, seed)
    trainer.add_callback(EachUpdate(advance))
    seconds = filtering + _train(trainer)
    if keeps_model:
        trainer.save_model()
    weights, confidence = np.ones(len(pool)), None
    if not method.is_trl:
        table, confidence = trainer.example_weights(), trainer.weight_confidence
        weights = np.asarray(table["weight"])
        if not keeps_model:
            trainer.save_example_weights(folder)
    if trainer.is_world_process_zero():
        save_cell_files(folder, trainer.args, trainer.state.log_history)
    held_out = experiment.held_out()
    losses = trainer.evaluate() if held_out else {}
    is_good = np.asarray(pool["is_good"]) if "is_good" in pool.column_names else None
    return Result(
        method=method.name,
        label=method.label,
        seed=seed,
        effective_sample_size=effective_sample_size(weights),
        num_rows=len(pool),
        weights_auc=None if is_good is None else weights_auc(weights, is_good),
        eval_loss=losses.get("eval_trusted_loss"),
        seconds=seconds,
        metrics={
            "clean_eval_loss": losses.get("eval_clean_loss"),
            "exact_answers": _exact_answers(trainer, experiment),
            "loss_auc": _loss_auc(trainer, is_good),
            **{
                f"{name}_losses": _losses_per_row(trainer, trainer.eval_dataset[rows]).tolist()
                for name, rows in (("eval", "trusted"), ("holdout", "holdout"))
                if rows in held_out
            },
            "selection_report": getattr(trainer, "selection_report", None),
            "weight_confidence": None if confidence is None else confidence.to_dict(),
        },
    )


def _losses_per_row(trainer: SFTTrainer, rows: Dataset) -> np.ndarray:
    pad, batch_size = trainer.processing_class.pad_token_id, trainer.args.per_device_eval_batch_size
    return mean_nll_per_row(trainer.model, rows, pad, batch_size)


def _exact_answers(trainer: SFTTrainer, experiment: SFTExperiment) -> float | None:
    rows = experiment.evaluation
    if rows is None or experiment.answer_tokens is None:
        return None
    model = trainer.accelerator.unwrap_model(trainer.model)
    return exact_answers(model, experiment.tokenizer, rows["prompt"], rows["completion"], experiment.answer_tokens)


def _loss_auc(trainer: SFTTrainer, is_good: np.ndarray | None) -> float | None:
    if is_good is None or trainer.args.packing:
        return None
    return weights_auc(-_losses_per_row(trainer, trainer.train_dataset)[: len(is_good)], is_good)


def _train(trainer: SFTTrainer) -> float:
    """Seconds that training took, scoring before it included."""
    if trainer.args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
    start = time.perf_counter()
    trainer.train()
    return time.perf_counter() - start


def _shared(experiment: SFTExperiment) -> dict[str, Any]:
    return {
        "model": experiment.make_model(),
        "processing_class": experiment.tokenizer,
        "eval_dataset": experiment.held_out() or None,
        "peft_config": None if experiment.make_peft_config is None else experiment.make_peft_config(),
    }


def _trainer(
    method: SFTMethod, experiment: SFTExperiment, pool: Dataset, options: dict[str, Any], folder: Path, seed: int
) -> BilevelSFTSelfRefineTrainer:
    label_column = "is_good" if "is_good" in pool.column_names else None
    args = BilevelSFTSelfRefineConfig(
        **{**options, **method.options}, output_dir=str(folder), seed=seed, label_column=label_column
    )
    trainer = BilevelSFTSelfRefineTrainer(
        args=args, train_dataset=pool, validation_dataset=experiment.validation, **_shared(experiment)
    )
    # It can take longer than training, whose bar is the comparison's.
    trainer.shows_scoring = True
    return trainer


class PlannedBatches(SFTTrainer):
    """[`~trl.SFTTrainer`] that takes the rows of its one pass in a given order."""

    planned_rows: Sequence[int] | None = None
    train_dataset: Dataset

    def _get_train_sampler(self, train_dataset=None):
        return super()._get_train_sampler(train_dataset) if self.planned_rows is None else self.planned_rows

    def add_rows(self, rows: Dataset) -> None:
        """Put prepared rows behind the packed ones, each in a place of its own, as no pool's row may share one with them."""
        lengths = [[len(ids)] for ids in rows["input_ids"]]
        added = rows.select_columns(["input_ids", "labels"]).add_column("seq_lengths", lengths)
        packed = self.train_dataset.select_columns(added.column_names)
        self.train_dataset = concatenate_datasets([packed, added.cast(packed.features)])


def trl_trainer(
    method: SFTMethod, experiment: SFTExperiment, pool: Dataset, options: dict[str, Any], folder: Path, seed: int
) -> SFTTrainer:
    """As many steps as the others take, on batches as large as theirs of pool and validation rows together. With `packing`, stages
    have packed rows of the pool and single validation rows, as the other methods have."""
    args = SFTConfig(
        **{name: value for name, value in options.items() if name in SFTConfig.__dataclass_fields__},
        output_dir=str(folder),
        seed=seed,
    )
    rows, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps * args.world_size
    args.max_steps = planned_updates(args, len(pool))
    args.per_device_train_batch_size = rows + (options.get("per_device_validation_batch_size") or rows)
    size, updates = args.per_device_train_batch_size * accumulation, args.max_steps
    if method.stages:
        args.max_steps = sum(stage_updates(method.stages, updates))
    columns, shared = experiment.validation.column_names, _shared(experiment)
    parts = [pool.select_columns(columns), experiment.validation.select_columns(columns)]
    if method.stages and args.packing:
        sets = {**experiment.held_out(), _TRUSTED: parts.pop()}
        trainer = PlannedBatches(args=args, train_dataset=parts[0], **shared | {"eval_dataset": sets})
        trainer.add_rows(trainer.eval_dataset.pop(_TRUSTED))
    else:
        trainer = PlannedBatches(args=args, train_dataset=concatenate_datasets(parts), **shared)
    if method.stages:
        num_trusted = len(experiment.validation)
        num_pool = len(trainer.train_dataset) - num_trusted
        trainer.planned_rows = planned_rows(method.stages, updates, size, num_pool, num_trusted, seed)
    return trainer


def stage_updates(stages: Sequence[tuple[float, float]], updates: int) -> list[int]:
    """Updates of each stage. Where stages end is rounded, not how long they are, so that shares of one make all `updates`."""
    ends = [round(share * updates) for share in accumulate(share for share, _ in stages)]
    return [end - start for start, end in zip([0, *ends], ends)]


def planned_rows(
    stages: Sequence[tuple[float, float]], updates: int, size: int, num_pool: int, num_trusted: int, seed: int
) -> list[int]:
    """Rows of all updates, one batch after the other: the pool's 0..num_pool-1, then the trusted ones. Each kind comes in a fresh
    random order, pass by pass.

    Args:
        stages (`Sequence[tuple[float, float]]`): per stage its share of the updates, and of trusted rows in each batch.
        updates (`int`): of the whole training.
        size (`int`): rows of an update.
        num_pool (`int`): rows of the pool.
        num_trusted (`int`): trusted rows.
        seed (`int`): of the orders.
    """
    pool, trusted = EndlessSampler(num_pool, seed), EndlessSampler(num_trusted, seed)
    rows = []
    for number, (_, share_trusted) in zip(stage_updates(stages, updates), stages):
        count = round(share_trusted * size)
        for _ in range(number):
            rows += [num_pool + row for row in trusted.take(count)] + pool.take(size - count)
    return rows


def _rows_of_lowest_loss(
    share: float, experiment: SFTExperiment, pool: Dataset, options: dict[str, Any], folder: Path, seed: int
) -> tuple[Dataset, float]:
    """The pool's rows that have the lowest losses after a plain training on the pool alone, and the seconds that it took."""
    on_pool = SFTMethod("low_loss_filter", "", stages=((1.0, 0.0),))
    trainer = trl_trainer(on_pool, experiment, pool, options, folder, seed)
    seconds = _train(trainer)
    losses = _losses_per_row(trainer, trainer.train_dataset)[: len(pool)]
    return pool.select(np.sort(np.argsort(losses, kind="stable")[: round(share * len(pool))])), seconds
