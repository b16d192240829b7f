"""Cells of a comparison on trajectories of one's own: training, losses on the rows that judge, and games if there is an
environment."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache

from boost_trl.comparison.cells import Cell
from boost_trl.comparison.offline_rl.comparison import OfflineRLComparison, Options
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.games import BETAS, play_games
from boost_trl.comparison.offline_rl.methods import METHODS, VANILLA, OfflineRLMethod
from boost_trl.comparison.offline_rl.training import auc_of_planted_truth, train_method
from boost_trl.comparison.own_data.own_data import ALL_TRUSTED
from boost_trl.comparison.own_data.policy_losses import policy_losses
from boost_trl.comparison.results import Result
from boost_trl.environments.rollout import choose_tasks, summarize
from boost_trl.selection.tempering import effective_sample_size
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.offline_rl.scoring_budget import JUDGED_BETAS


WEIGHTS_NAME = "example_weights.parquet"
TRUSTED_ONLY = OfflineRLMethod(
    "trusted_only", "Trusted rows only", VANILLA, rows=lambda experiment, args: experiment.validation
)


class TrajectoryComparison(OfflineRLComparison):
    """[`OfflineRLComparison`] that needs no environment.

    Args:
        folder (`str` or `Path`): gets `runs/`.
        options (`Options`): of every cell.
        make_experiment (`Callable`): model, data and, if there is an environment, games of a cell.
        made_with (`Any`): what results depend on beside the options, as JSON.
    """

    methods = {**METHODS, TRUSTED_ONLY.name: TRUSTED_ONLY}

    def __init__(
        self,
        folder: str | Path,
        options: Options,
        make_experiment: Callable[[Cell], OfflineRLExperiment],
        made_with: Any,
    ):
        super().__init__(folder, lambda cell: options, make_experiment, drawn=None)
        self.made_with = made_with
        # β of the model that is kept.
        self.kept_beta: float | None = None

    def settings(self, cell: Cell) -> dict[str, Any]:
        settings = {**super().settings(cell), "made_with": self.made_with}
        return settings | {"beta": self.kept_beta} if cell.setting == ALL_TRUSTED else settings

    def steps(self, cell: Cell) -> int:
        """Training and sets of games."""
        has_games = self.experiment(cell).make_env is not None and cell.setting != ALL_TRUSTED
        return 1 + (len(BETAS) + 1) * has_games

    def run(self, cell: Cell, advance: Callable[[], object] = lambda: None) -> Result:
        """Train and judge; the model of the setting `ALL_TRUSTED` is saved at `kept_beta` instead."""
        method, experiment, folder = self.methods[cell.method], self.experiment(cell), self.run_folder(cell)
        args = replace(self.options(cell).training_args, seed=cell.seed)
        start = time.perf_counter()
        trainer = train_method(method, experiment, args, folder)
        seconds = time.perf_counter() - start
        judged: dict[str, Any] = {}
        if cell.setting == ALL_TRUSTED:
            trainer.args.beta = self.kept_beta
            trainer.save_model()
        else:
            judged["policy_losses"] = policy_losses(trainer, experiment.evaluation, JUDGED_BETAS).tolist()
            if experiment.make_env is not None:
                advance()
                judged |= self._play(cell, trainer, advance)
        table = trainer.example_weights()
        if PartialState().is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            table.to_parquet(str(folder / WEIGHTS_NAME))
        weights, rows = np.asarray(table["weight"]), trainer.data.train_dataset
        result = Result(
            method=method.name,
            label=method.label,
            seed=cell.seed,
            setting=cell.setting,
            effective_sample_size=effective_sample_size(weights),
            num_rows=len(weights),
            weights_auc=auc_of_planted_truth(rows, weights) if any(rows["is_noise"]) else None,
            eval_loss=trainer.evaluate()["eval_loss"] if experiment.evaluation is not None else None,
            seconds=seconds,
            metrics={**judged, "report": trainer.validated_report},
        )
        del trainer
        clear_device_cache(garbage_collection=True)
        return result

    def _play(self, cell: Cell, trainer: BilevelOfflineRLTrainer, advance: Callable[[], object]) -> dict[str, Any]:
        """β by games on the tasks of the trusted rows that methods use, then games on those of the rows that judge."""
        experiment, arguments, seed = self.experiment(cell), self.options(cell).arguments, cell.seed

        def play(beta, tasks, games, seed):
            return summarize(play_games(trainer, experiment, beta, choose_tasks(tasks, games, seed), seed))

        scores = {}
        for beta in BETAS:
            tried = play(beta, experiment.validation_tasks, arguments.validation_games, 2 * seed + 1)
            scores[beta] = tried["score_mean"]
            advance()
        beta = max(BETAS, key=lambda beta: (scores[beta], -beta))
        played = play(beta, experiment.evaluation_tasks, arguments.games, 2 * seed)
        return {"beta": beta, **{name: played[name] for name in ("score_mean", "score_se", "success_rate")}}
