"""Cells of a comparison on trajectories of one's own: training, losses on the rows that judge, and games if there is an
environment."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache
from datasets import Dataset

from boost_trl.comparison.cells import Cell
from boost_trl.comparison.offline_rl.comparison import OfflineRLComparison, Options
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.games import BETAS, play_method
from boost_trl.comparison.offline_rl.methods import METHODS, VANILLA, OfflineRLMethod
from boost_trl.comparison.offline_rl.training import train_method
from boost_trl.comparison.own_data.own_data import ALL_TRUSTED
from boost_trl.comparison.own_data.policy_losses import policy_losses
from boost_trl.comparison.own_data.trusted_split import split_trusted
from boost_trl.comparison.results import Result
from boost_trl.data.trajectories import to_trajectory
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.offline_rl.backbone import tokenize_options
from boost_trl.trainer.offline_rl.scoring_budget import JUDGED_BETAS


WEIGHTS_NAME = "example_weights.parquet"
# Trusted rows for a method, with games their tasks, below which none are held out to choose how it is trained.
FEWEST_CHOOSING = 12
TRUSTED_ONLY = OfflineRLMethod(
    "trusted_only",
    "Trusted rows only",
    VANILLA,
    rows=lambda experiment, args: experiment.validation,
    about="no row of the pool, trusted rows alone",
)


class TrajectoryComparison(OfflineRLComparison):
    """[`OfflineRLComparison`] that needs no environment.

    A method that can finish is trained in several ways: with an environment games on `validation_tasks` choose one of them, as they
    choose β; without one trusted rows that are held out for this do, and then all of them train. The rows that judge
    have no part in it.

    Args:
        folder (`str` or `Path`): gets `runs/`.
        options (`Options`): of every cell.
        make_experiment (`Callable`): model, data and, if there is an environment, games of a cell.
        made_with (`Any`): what results depend on beside the options, as JSON.
        plain (`str`): the method that never finishes.
    """

    methods = {**METHODS, TRUSTED_ONLY.name: TRUSTED_ONLY}

    def __init__(
        self,
        folder: str | Path,
        options: Options,
        make_experiment: Callable[[Cell], OfflineRLExperiment],
        made_with: Any,
        plain: str,
    ):
        super().__init__(folder, lambda cell: options, make_experiment)
        self.made_with, self.plain = made_with, plain
        # β of the model that is kept, and which of the several ways it is trained in.
        self.kept_beta: float | None = None
        self.kept_choice = ""

    def settings(self, cell: Cell) -> dict[str, Any]:
        settings = {**super().settings(cell), "made_with": self.made_with}
        kept = {"beta": self.kept_beta, "choice": self.kept_choice}
        return settings | kept if cell.setting == ALL_TRUSTED else settings

    def steps(self, cell: Cell) -> int:
        """Trainings and sets of games."""
        if cell.setting == ALL_TRUSTED:
            return 1
        choices = self.num_choices(cell)
        if self.experiment(cell).make_env is not None:
            return choices * (1 + len(BETAS)) + 1
        return num_trainings(choices, has_games=False)

    def run(self, cell: Cell, advance: Callable[[], object] = lambda: None) -> Result:
        """Train and judge; the model of the setting `ALL_TRUSTED` is saved at `kept_beta` instead."""
        experiment, folder = self.experiment(cell), self.run_folder(cell)
        args = self._args_of(cell)
        judged: dict[str, Any] = {}
        if experiment.make_env is not None:
            chosen = self._best_choice(cell, args, advance)
            trainer, choice, seconds, report = chosen.trainer, chosen.name, chosen.seconds, chosen.report
            played = play_method(
                trainer, experiment, chosen.scores, games=self.options(cell).arguments.games, seed=cell.seed
            )
            judged = {name: played[name] for name in ("beta", "score_mean", "score_se", "success_rate")}
        else:
            start, choices = time.perf_counter(), self._choices(cell)
            choice = self.kept_choice if cell.setting == ALL_TRUSTED else self._choice_by_losses(cell, args, advance)
            args = replace(args, **choices.get(choice, {}))
            method = self.methods[cell.method]
            if choice == method.where_near_chance:
                method = self.methods[choice]
            trainer = train_method(method, experiment, args, folder)
            seconds, report = time.perf_counter() - start, trainer.validated_report
        if cell.setting == ALL_TRUSTED:
            trainer.args.beta = self.kept_beta
            trainer.save_model()
        else:
            judged["policy_losses"] = judged_losses(trainer, experiment.evaluation).tolist()
            judged["choice"] = choice
        if PartialState().is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            trainer.example_weights().to_parquet(str(folder / WEIGHTS_NAME))
        result = self._result(cell, trainer, seconds, judged)
        result.metrics["report"] = report
        del trainer
        clear_device_cache(garbage_collection=True)
        return result

    def num_choices(self, cell: Cell) -> int:
        """Ways of training a cell's method among which one is chosen."""
        return len(self._choices(cell))

    def _choices(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """Options of the trainer by name; one entry where there is nothing to choose, or too little to choose by."""
        experiment, candidates = self.experiment(cell), self.methods[cell.method].candidates
        if cell.method == self.plain:
            return {"": {}}
        shares = self.options(cell).arguments.finish_shares
        if shares is not None and len(shares) == 1 and candidates:
            return {f"finish-{shares[0]}": {**candidates[0].options, "finish_share": shares[0]}}
        choices = super()._choices(cell)
        is_small = experiment.make_env is None and len(experiment.validation) < FEWEST_CHOOSING
        return {"": {}} if len(choices) > 1 and is_small and cell.setting != ALL_TRUSTED else choices

    def _choice_by_losses(self, cell: Cell, args: BilevelOfflineRLConfig, advance: Callable[[], object]) -> str:
        """The way of training that has the lowest policy loss, at its best β, on trusted trajectories of high return that are held
        out for this; the first of equals."""
        method, experiment, choices = self.methods[cell.method], self.experiment(cell), self._choices(cell)
        if len(choices) == 1:
            return next(iter(choices))
        rows = experiment.validation
        fitting, judging = split_trusted(range(len(rows)), 1 / 3, cell.seed)
        held_out = rows.select(judging)
        held_out = held_out.select(np.flatnonzero(is_high_return([sum(rewards) for rewards in held_out["rewards"]])))
        experiment = replace(experiment, validation=rows.select(fitting), evaluation=None)
        losses = {}
        for name, options in choices.items():
            trainer = train_method(method, experiment, replace(args, **options), self.run_folder(cell) / name)
            losses[name] = np.nanmean(judged_losses(trainer, held_out), axis=1).min()
            advance()
        return min(losses, key=losses.__getitem__)


def judged_losses(trainer: BilevelOfflineRLTrainer, rows: Dataset) -> np.ndarray:
    """[`policy_losses`] of a trainer's policy at `JUDGED_BETAS`."""
    policy = trainer.policy()
    options = tokenize_options(policy.causal_lm, trainer.args)
    return policy_losses(policy, rows, JUDGED_BETAS, trainer.processing_class, **options)


def spoken(row: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Roles and words of a trajectory: rows in which this is equal are the same to a policy."""
    return tuple((message["role"], str(message["content"])) for message in to_trajectory(row, 0)["messages"])


def num_trainings(num_choices: int, has_games: bool) -> int:
    """Trainings of a cell: without games the chosen way once more, with all trusted rows."""
    return num_choices if has_games or num_choices == 1 else num_choices + 1


def is_high_return(returns: Sequence[float]) -> np.ndarray:
    """The returns of at least their median, as a mask: what a policy is judged by, since it is not to repeat failures."""
    return np.asarray(returns) >= np.median(returns)
