"""The rows of a comparison: each is a choice of training rows and a few settings of the one trainer."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from torch.utils.data import Sampler

from boost_trl.comparison.cells import Method
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.common.endless_sampler import EndlessSampler
from boost_trl.trainer.offline_rl.row_filters import filter_rows
from boost_trl.trainer.offline_rl.weight_candidates import Candidate


class FinishingTrainer(BilevelOfflineRLTrainer):
    """Trains on all rows, pool and validation, but for the last `finish_share` of the updates, which see the validation rows
    alone."""

    def _get_train_sampler(self, train_dataset=None) -> Sampler | list[int] | None:
        if not self.args.finish_share:
            return super()._get_train_sampler(train_dataset)
        finishing = round(self.args.max_steps * self.args.finish_share)
        return self._two_stages(np.arange(self.data.num_training), self.args.max_steps - finishing)

    def _two_stages(self, first_rows: np.ndarray, first_updates: int) -> list[int]:
        """Row numbers of all updates: `first_updates` on shuffled `first_rows`, the others on shuffled validation rows."""
        args, batch = self.args, self.get_total_train_batch_size(self.args)
        first = EndlessSampler(len(first_rows), args.seed).take(first_updates * batch)
        validation = np.flatnonzero(self._is_validation())
        then = EndlessSampler(len(validation), args.seed + 1).take((args.max_steps - first_updates) * batch)
        return [*first_rows[first].tolist(), *validation[then].tolist()]

    def _is_validation(self) -> np.ndarray:
        return np.asarray(self.data.train_dataset["is_validation"])[self.data.training.original_row]


class TwoStageTrainer(FinishingTrainer):
    """Trains on the pool first and on the validation rows at its end after that, under one learning-rate schedule, in
    the proportion K_ψ : K_θ of the bilevel methods' updates; it always finishes, whatever `finish_share` is."""

    def _get_train_sampler(self, train_dataset=None) -> list[int]:
        args = self.args
        first = round(args.max_steps * args.auxiliary_steps / (args.auxiliary_steps + args.primary_steps))
        return self._two_stages(np.flatnonzero(~self._is_validation()), first)


def _pool(experiment: OfflineRLExperiment, args: BilevelOfflineRLConfig) -> Dataset:
    return experiment.pool


@dataclass(frozen=True)
class OfflineRLMethod(Method):
    """One row of a comparison; `options` are fields of [`BilevelOfflineRLConfig`].

    Args:
        rows (`Callable[[OfflineRLExperiment, BilevelOfflineRLConfig], Dataset]`, *optional*): training rows; the whole pool
            by default.
        trainer_class (*optional*): the trainer.
        needs_planted_noise (`bool`, *optional*): whether it makes sense only where the bad rows are known.
        shows_best_beta (`bool`, *optional*): whether its score at the β that is best on the evaluation games is given
            too, as an upper bound for what sharpening alone can do.
        candidates (`tuple[Candidate, ...]`, *optional*): all are trained, and games on validation tasks choose one.
        where_near_chance (`str`, *optional*): the method that takes its place where held-out validation rows rank no higher in
            the pool than chance allows, so that the candidates' weights are worth nothing.
    """

    rows: Callable[[OfflineRLExperiment, BilevelOfflineRLConfig], Dataset] = _pool
    trainer_class: type[BilevelOfflineRLTrainer] = BilevelOfflineRLTrainer
    needs_planted_noise: bool = False
    shows_best_beta: bool = False
    candidates: tuple[Candidate, ...] = ()
    where_near_chance: str | None = None

    @classmethod
    def of_candidate(cls, candidate: Candidate) -> "OfflineRLMethod":
        """A candidate of validated reweighting as a row of its own, without any choice."""
        return cls(candidate.name, candidate.name, {**VALIDATED, **candidate.options})

    def finishing(self, share: float) -> "OfflineRLMethod":
        """The same method with that `finish_share`, under a name that says so."""
        name, label = f"{self.name}+finish@{share:g}", f"{self.label}, finish {share:g}"
        return replace(self, name=name, label=label, options={**self.options, "finish_share": share})

    @property
    def learns_weights(self) -> bool:
        """Whether its rows' weights are learned, in training or before it."""
        return self.uses_validation and self.options.get("reweighting", "learned") == "learned"

    @property
    def can_finish(self) -> bool:
        """Whether `finish_share` applies to it."""
        return self.options.get("method") == "validated" or self.trainer_class is FinishingTrainer

    @property
    def uses_validation(self) -> bool:
        return self.options.get("method", "boost") != "vanilla"


def _offline(experiment: OfflineRLExperiment, args: BilevelOfflineRLConfig) -> Dataset:
    return experiment.offline


def _pool_and_validation(experiment: OfflineRLExperiment, args: BilevelOfflineRLConfig) -> Dataset:
    parts = [experiment.pool, experiment.validation]
    marks = [flag for flag, part in zip((False, True), parts) for _ in range(len(part))]
    return concatenate_datasets(parts).add_column("is_validation", marks)


def _known_good(experiment: OfflineRLExperiment, args: BilevelOfflineRLConfig) -> Dataset:
    pool = experiment.pool
    return pool.select([row for row, is_noise in enumerate(pool["is_noise"]) if not is_noise])


def _filtered(kind: str) -> Callable[[OfflineRLExperiment, BilevelOfflineRLConfig], Dataset]:
    def rows(experiment: OfflineRLExperiment, args: BilevelOfflineRLConfig) -> Dataset:
        pool = experiment.pool
        # What the first process caches, the others read.
        with PartialState().main_process_first():
            return pool.select(
                filter_rows(
                    kind, pool, experiment.make_model(), experiment.tokenizer, args, args.target_effective_fraction
                )
            )

    return rows


VANILLA = {"method": "vanilla"}
UNIFORM = {"reweighting": "uniform"}
VALIDATED = {"method": "validated"}
UNIFORM_MIX = {"method": "validated", "reweighting": "uniform"}
# As few as a control has, since they share the games that choose: the weights that were above equal ones on all pools of the study
# of guards, without finishing and with as much of it as Two-stage has by default.
CHOSEN_BY_GAMES = tuple(Candidate("all", 0.4, finish_share=share) for share in (0.0, 0.5))

_EVEN = "all rows of the pool weigh the same, and a fifth of every batch are trusted rows"
_KNOWN = "if one knew which rows are good: a bar to reach, not a method"

METHODS = {
    method.name: method
    for method in (
        OfflineRLMethod(
            "vanilla", "Vanilla", VANILLA, rows=_offline, about="plain training on the pool's offline rows"
        ),
        OfflineRLMethod(
            "vanilla_synthetic",
            "Vanilla+Syn",
            VANILLA,
            about="the same, and dialogues that the model made up (synthetic rows)",
        ),
        OfflineRLMethod(
            "vanilla_validation",
            "Vanilla+Val",
            VANILLA,
            rows=_pool_and_validation,
            trainer_class=FinishingTrainer,
            about="plain training: pool and trusted rows together, all alike",
        ),
        OfflineRLMethod(
            "two_stage",
            "Two-stage",
            VANILLA,
            rows=_pool_and_validation,
            trainer_class=TwoStageTrainer,
            about="the first half of the updates on the pool, the second on the trusted rows",
        ),
        OfflineRLMethod("uniform", "Uniform", UNIFORM, about="BOOST's schedule with equal weights"),
        OfflineRLMethod("bilevel", "Bilevel Only", rows=_offline, about="BOOST without synthetic rows"),
        OfflineRLMethod(
            "boost",
            "BOOST",
            about="the paper's: while the policy trains, a head learns which rows help on the trusted ones",
        ),
        OfflineRLMethod(
            "validated",
            "Validated",
            VALIDATED,
            about="rows of the pool weigh more the more they agree with what the trusted rows teach, and a fifth of every batch are "
            "trusted rows",
        ),
        OfflineRLMethod(
            "by_games",
            "Validated, chosen by games",
            VALIDATED,
            candidates=CHOSEN_BY_GAMES,
            where_near_chance="two_stage",
            about="rows of the pool weigh more the more they agree with what the trusted rows teach, and games on the trusted rows' tasks "
            "choose whether training ends with trusted rows alone; where such weights tell nothing, Two-stage",
        ),
        OfflineRLMethod("uniform_mix", "Uniform mix", UNIFORM_MIX, shows_best_beta=True, about=_EVEN),
        OfflineRLMethod(
            "return_filter",
            "Return filter",
            UNIFORM_MIX,
            rows=_filtered("return"),
            about="Uniform mix on the rows of the highest returns only",
        ),
        OfflineRLMethod(
            "loss_filter",
            "Low-loss filter",
            UNIFORM_MIX,
            rows=_filtered("low_loss"),
            about="Uniform mix on the rows that a policy fitted to the whole pool finds likeliest",
        ),
        OfflineRLMethod(
            "oracle", "Oracle", UNIFORM, rows=_known_good, needs_planted_noise=True, about=f"Uniform, {_KNOWN}"
        ),
        OfflineRLMethod(
            "oracle_mix",
            "Oracle mix",
            UNIFORM_MIX,
            rows=_known_good,
            needs_planted_noise=True,
            about=f"Uniform mix, {_KNOWN}",
        ),
    )
}
