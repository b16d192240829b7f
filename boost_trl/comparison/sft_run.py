"""Training one method of a comparison of supervised fine-tuning."""

import hashlib
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, concatenate_datasets
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from boost_trl.comparison.sft_methods import SFTMethod
from boost_trl.comparison.sft_setting import SFTSetting
from boost_trl.comparison.study import saved_or_run
from boost_trl.selection.auc import weights_auc
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.sft.evaluation import row_losses
from boost_trl.trainer.sft.results import DEFAULT_WEIGHT_COLUMN, EXAMPLE_WEIGHTS_NAME


RESULT_NAME = "result.json"


@dataclass
class SFTResult:
    """What one method gave with one seed. Field names are those of `results.json`.

    `auc` is that of the final weights, `None` if they are constant; `loss_auc` that of minus the rows' final losses: what
    ranking them by the trained model alone would give. `guard_losses` has one loss per trusted row kept out of training.
    """

    method: str
    label: str
    seed: int
    eval_loss: float
    clean_eval_loss: float
    auc: float | None
    loss_auc: float | None
    effective_sample_size: float
    num_rows: int
    seconds: float
    guard_losses: list[float] = field(repr=False, default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_sft_method(
    method: SFTMethod, setting: SFTSetting, options: dict[str, Any], folder: Path, seed: int
) -> SFTResult:
    """
    Train `method` in `folder/<method>-<seed>` and evaluate it; if that was done before with these settings, read it.

    Args:
        method (`SFTMethod`): which.
        setting (`SFTSetting`): model and data.
        options (`dict`): fields of [`BilevelSFTSelfRefineConfig`] that all methods share.
        folder (`Path`): of all runs.
        seed (`int`): of training.

    Raises:
        ValueError: if the method needs the weights of another that has not run with this seed.
    """
    run_folder = folder / f"{method.name}-{seed}"
    pool = _rows(method, setting, folder, seed)
    datasets = (pool, setting.validation, setting.evaluation, setting.clean_evaluation, setting.guard)
    rows = hashlib.sha256(repr([dataset.to_list() for dataset in datasets]).encode()).hexdigest()
    settings = repr([sorted({**options, **method.options}.items()), setting.model_name, rows])
    saved = saved_or_run(
        run_folder / RESULT_NAME,
        {"settings": settings},
        lambda: _train_and_evaluate(method, setting, pool, options, run_folder, seed),
    )
    return SFTResult(**{name: value for name, value in saved.items() if name != "settings"})


def _train_and_evaluate(
    method: SFTMethod, setting: SFTSetting, pool: Dataset, options: dict[str, Any], run_folder: Path, seed: int
) -> SFTResult:
    trainer = (_plain_trainer if method.plain else _trainer)(method, setting, pool, options, run_folder, seed)
    if trainer.args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
    seconds = trainer.train().metrics["train_runtime"]
    if not method.plain:
        trainer.save_model()
    losses = trainer.evaluate()
    is_good = np.asarray(pool["is_good"])
    weights = np.ones(len(pool)) if method.plain else np.asarray(trainer.example_weights()["weight"])
    return SFTResult(
        method=method.name,
        label=method.label,
        seed=seed,
        eval_loss=losses["eval_trusted_loss"],
        clean_eval_loss=losses["eval_clean_loss"],
        auc=weights_auc(weights, is_good),
        loss_auc=weights_auc(-row_losses(trainer, trainer.train_dataset)[: len(pool)], is_good),
        effective_sample_size=float(weights.sum() ** 2 / (weights**2).sum()),
        num_rows=len(pool),
        seconds=seconds,
        guard_losses=row_losses(trainer, trainer.eval_dataset["guard"]).tolist(),
    )


def _rows(method: SFTMethod, setting: SFTSetting, folder: Path, seed: int) -> Dataset:
    if method.known_good:
        return setting.pool.filter(lambda row: row["is_good"])
    if method.weights_of is None:
        return setting.pool
    weights_path = folder / f"{method.weights_of}-{seed}" / EXAMPLE_WEIGHTS_NAME
    if not weights_path.is_file():
        raise ValueError(
            f"Method '{method.name}' trains with the weights of '{method.weights_of}': run that one first."
        )
    return setting.pool.add_column(DEFAULT_WEIGHT_COLUMN, pd.read_parquet(weights_path)["weight"].tolist())


def _shared(setting: SFTSetting) -> dict[str, Any]:
    return {
        "model": setting.make_model(),
        "processing_class": setting.tokenizer,
        "eval_dataset": {
            "trusted": setting.evaluation,
            "clean": setting.clean_evaluation,
            "guard": setting.guard,
        },
        "peft_config": None if setting.make_peft_config is None else setting.make_peft_config(),
    }


def _trainer(
    method: SFTMethod, setting: SFTSetting, pool: Dataset, options: dict[str, Any], run_folder: Path, seed: int
) -> BilevelSFTSelfRefineTrainer:
    args = BilevelSFTSelfRefineConfig(
        **{**options, **method.options}, output_dir=str(run_folder), seed=seed, label_column="is_good"
    )
    return BilevelSFTSelfRefineTrainer(
        args=args, train_dataset=pool, validation_dataset=setting.validation, **_shared(setting)
    )


def _plain_trainer(
    method: SFTMethod, setting: SFTSetting, pool: Dataset, options: dict[str, Any], run_folder: Path, seed: int
) -> SFTTrainer:
    """As many steps as the others take, on batches as large as theirs of pool and validation rows together."""
    args = SFTConfig(
        **{name: value for name, value in options.items() if name in SFTConfig.__dataclass_fields__},
        output_dir=str(run_folder),
        seed=seed,
    )
    rows = args.per_device_train_batch_size
    args.max_steps = math.ceil(
        len(pool) / (rows * args.gradient_accumulation_steps * args.world_size) * args.num_train_epochs
    )
    args.per_device_train_batch_size = rows + (options.get("per_device_validation_batch_size") or rows)
    columns = ["prompt", "completion"]
    both = concatenate_datasets([pool.select_columns(columns), setting.validation.select_columns(columns)])
    return SFTTrainer(args=args, train_dataset=both, **_shared(setting))
