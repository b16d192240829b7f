"""The rows of a comparison: each is a choice of training rows and a few settings of the one trainer (SPEC §4)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from torch.utils.data import DataLoader

from boost_trl.comparison.setting import Setting
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.common.endless_sampler import EndlessSampler
from boost_trl.trainer.offline_rl.row_filters import filter_rows


class TwoStageTrainer(BilevelOfflineRLTrainer):
    """Trains on the pool first and on the validation rows at its end after that, under one learning-rate schedule, in
    the proportion K_ψ : K_θ of the bilevel methods' updates."""

    def get_train_dataloader(self) -> DataLoader:
        args = self.args
        batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * self.accelerator.num_processes
        first = round(args.max_steps * args.auxiliary_steps / (args.auxiliary_steps + args.primary_steps))
        in_pool = self.trajectories["is_validation"].index(True)
        pool = torch.from_numpy(self.train_store.original_row < in_pool).nonzero()[:, 0].tolist()
        validation = torch.from_numpy(self.train_store.original_row >= in_pool).nonzero()[:, 0].tolist()
        order = [pool[i] for i in EndlessSampler(len(pool), args.seed).take(first * batch)]
        rest = (args.max_steps - first) * batch
        order += [validation[i] for i in EndlessSampler(len(validation), args.seed + 1).take(rest)]
        loader = DataLoader(
            self.train_dataset,
            batch_size=args.per_device_train_batch_size,
            sampler=order,
            collate_fn=self.data_collator,
        )
        return self.accelerator.prepare(loader)


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Args:
        name (`str`): in files.
        label (`str`): in tables.
        rows (`Callable[[Setting, BilevelOfflineRLConfig], Dataset]`): training rows.
        options (`dict`, *optional*): fields of [`BilevelOfflineRLConfig`] that it sets.
        trainer_class (*optional*): the trainer.
        needs_planted_noise (`bool`, *optional*): whether it makes sense only where the bad rows are known.
        shows_best_beta (`bool`, *optional*): whether its score at the β that is best on the evaluation games is given
            too, as an upper bound for what sharpening alone can do.
    """

    name: str
    label: str
    rows: Callable[[Setting, BilevelOfflineRLConfig], Dataset]
    options: dict[str, Any] = field(default_factory=dict)
    trainer_class: type[BilevelOfflineRLTrainer] = BilevelOfflineRLTrainer
    needs_planted_noise: bool = False
    shows_best_beta: bool = False

    @property
    def learns_weights(self) -> bool:
        """Whether its rows' weights are learned, in training or before it."""
        return self.uses_validation and self.options.get("reweighting", "learned") == "learned"

    @property
    def uses_validation(self) -> bool:
        return self.options.get("method", "boost") != "vanilla"


def _offline(setting: Setting, args: BilevelOfflineRLConfig) -> Dataset:
    return setting.offline


def _pool(setting: Setting, args: BilevelOfflineRLConfig) -> Dataset:
    return setting.pool


def _pool_and_validation(setting: Setting, args: BilevelOfflineRLConfig) -> Dataset:
    parts = [setting.pool, setting.validation]
    marks = [flag for flag, part in zip((False, True), parts) for _ in range(len(part))]
    return concatenate_datasets(parts).add_column("is_validation", marks)


def _known_good(setting: Setting, args: BilevelOfflineRLConfig) -> Dataset:
    pool = setting.pool
    return pool.select([row for row, is_noise in enumerate(pool["is_noise"]) if not is_noise])


def _filtered(kind: str) -> Callable[[Setting, BilevelOfflineRLConfig], Dataset]:
    def rows(setting: Setting, args: BilevelOfflineRLConfig) -> Dataset:
        pool = setting.pool
        # What the first process caches, the others read.
        with PartialState().main_process_first():
            return pool.select(
                filter_rows(kind, pool, setting.make_model(), setting.tokenizer, args, args.target_effective_fraction)
            )

    return rows


VANILLA = {"method": "vanilla"}
UNIFORM = {"reweighting": "uniform"}
VALIDATED = {"method": "validated"}
UNIFORM_MIX = {"method": "validated", "reweighting": "uniform"}

METHODS = {
    method.name: method
    for method in (
        Method("vanilla", "Vanilla", _offline, VANILLA),
        Method("vanilla_synthetic", "Vanilla+Syn", _pool, VANILLA),
        Method("vanilla_validation", "Vanilla+Val", _pool_and_validation, VANILLA),
        Method("two_stage", "Two-stage", _pool_and_validation, VANILLA, TwoStageTrainer),
        Method("uniform", "Uniform", _pool, UNIFORM),
        Method("bilevel", "Bilevel Only", _offline),
        Method("boost", "BOOST", _pool),
        Method("validated", "Validated", _pool, VALIDATED),
        Method("uniform_mix", "Uniform mix", _pool, UNIFORM_MIX, shows_best_beta=True),
        Method("return_filter", "Return filter", _filtered("return"), UNIFORM_MIX),
        Method("loss_filter", "Low-loss filter", _filtered("low_loss"), UNIFORM_MIX),
        Method("oracle", "Oracle", _known_good, UNIFORM, needs_planted_noise=True),
        Method("oracle_mix", "Oracle mix", _known_good, UNIFORM_MIX, needs_planted_noise=True),
    )
}
