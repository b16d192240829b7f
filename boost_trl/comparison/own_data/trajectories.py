"""A comparison of methods of offline RL on trajectories of one's own."""

import hashlib
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median_low, mode
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from trl import ModelConfig, get_peft_config

from boost_trl.comparison.cells import Cell
from boost_trl.comparison.models import files_fingerprint, load_model, load_tokenizer
from boost_trl.comparison.offline_rl.arguments import ComparisonArguments, settings_of
from boost_trl.comparison.offline_rl.build import distinct_tasks
from boost_trl.comparison.offline_rl.comparison import Options
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.games import BETAS, play_games
from boost_trl.comparison.offline_rl.training import train_method
from boost_trl.comparison.own_data.estimate import Estimate, used_memory
from boost_trl.comparison.own_data.own_data import Games, OwnData, num_updates
from boost_trl.comparison.own_data.trajectory_cells import (
    FEWEST_CHOOSING,
    WEIGHTS_NAME,
    TrajectoryComparison,
    is_high_return,
    judged_losses,
    num_trainings,
    spoken,
)
from boost_trl.comparison.own_data.trusted_split import check_split, split_trusted
from boost_trl.comparison.own_data.verdict import Judgement
from boost_trl.comparison.results import Result
from boost_trl.data.chat_templates import with_action_marks
from boost_trl.data.trajectories import to_trajectory, validate_trajectories
from boost_trl.environments.base import Task, as_task, make_env
from boost_trl.environments.rollout import choose_tasks
from boost_trl.selection.confidence import WeightConfidence
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.offline_rl.schedule import why_too_short
from boost_trl.trainer.offline_rl.scoring_budget import COST_LIMIT, JUDGED_BETAS
from boost_trl.trainer.offline_rl.weight_candidates import FINISH_SHARES


_TIMED_UPDATES, _TIMED_GAMES = 4, 16


class TrajectoryOwnData(OwnData):
    """As [`OwnData`].

    Args:
        pool (`Dataset`), trusted (`Dataset`): trajectories.
        names (`tuple[str, str]`): what messages call them.
        args ([`BilevelOfflineRLConfig`]): what all methods share; `output_dir` gets the results.
        model_args ([`~trl.ModelConfig`]): what they start from.
        judging_share (`float`): of the trusted rows.
        games (`Games`, *optional*): judge by games on the tasks (column `task`) of the trusted rows; otherwise by how likely a
            policy makes the actions of the trusted rows of high return.

    Raises:
        ValueError: naming dataset, row and column of what cannot be read, or an option that cannot be used here.
    """

    default_methods = ("vanilla_validation", "two_stage", "trusted_only", "uniform_mix", "validated")
    plain = "vanilla_validation"
    comparison: TrajectoryComparison

    def __init__(
        self,
        pool: Dataset,
        trusted: Dataset,
        names: tuple[str, str],
        args: BilevelOfflineRLConfig,
        model_args: ModelConfig,
        judging_share: float,
        games: Games | None = None,
    ):
        for rows, name in ((pool, names[0]), (trusted, names[1])):
            validate_trajectories(rows, name)
            if used := {"tools", "chat_template_kwargs"}.intersection(rows.column_names):
                raise ValueError(
                    f"{name} has a column `{min(used)}`, which comparisons of trajectories leave out; remove it"
                )
        if (args.method, args.reweighting) != ("boost", "learned"):
            raise ValueError("`method` and `reweighting` are what is compared; leave them out and name `methods`")
        self.judging_share, self.games = judging_share, games
        if games is not None:
            _check_tasks(trusted, names[1])
            self.default_methods = (*self.default_methods[:-1], "by_games")
        self.take(pool, trusted, names, spoken)
        self.groups = range(len(self.trusted)) if games is None else _task_names(self.trusted)
        check_split(self.groups, judging_share, names[1], has_tasks=games is not None)
        self.returns = np.array([sum(to_trajectory(row, 0)["rewards"]) for row in self.trusted])
        self.model_args, self.tokenizer = model_args, with_action_marks(load_tokenizer(model_args))
        self.num_updates = num_updates(args, len(self.pool))
        cache_dir = args.cache_dir or str(Path(args.output_dir) / "cache")
        # What finishes is among the choices of a cell.
        self.args = replace(args, max_steps=self.num_updates, cache_dir=cache_dir, finish_share=0.0)
        is_synthetic = np.array([row.get("source") == "synthetic" for row in self.pool])
        # The experiment has synthetic rows last.
        self.order = np.argsort(is_synthetic, kind="stable")
        self.num_synthetic = int(is_synthetic.sum())
        num_games: dict[str, Any] = (
            {} if games is None else {"games": games.num_games, "validation_games": games.num_games}
        )
        shares = [args.finish_share] if args.finish_share else list(FINISH_SHARES)
        options = Options(ComparisonArguments(**num_games, finish_shares=shares), self.args, model_args)
        self.options = settings_of(*options)
        rows = hashlib.sha256(repr([self.pool.to_list(), self.trusted.to_list()]).encode()).hexdigest()
        self.comparison = TrajectoryComparison(
            args.output_dir,
            options,
            self._experiment,
            made_with=json.loads(json.dumps([rows, judging_share, repr(games), files_fingerprint(model_args)])),
            plain=self.plain,
        )

    def remarks(self) -> list[str]:
        said = super().remarks()
        if self.games is None:
            return said
        tasks, in_pool = set(self.groups), set(_task_names(self.pool))
        if shared := len(tasks & in_pool):
            said.append(f"The pool has dialogues of {shared} of the trusted rows' {len(tasks)} tasks.")
        if len(set(_task_names(self.split(Cell(self.plain, 0))[0]))) < FEWEST_CHOOSING:
            said.append(
                "The trusted rows have too few tasks to hold some out for choosing β and finishing: games on tasks of the rows that "
                "methods train on choose these, to the advantage of methods that know such rows by heart."
            )
        return said

    def _experiment(self, cell: Cell) -> OfflineRLExperiment:
        validation, evaluation = self.split(cell)
        offline, synthetic = np.split(self.order, [len(self.order) - self.num_synthetic])
        games = None if evaluation is None else self.games
        validation, choosing = (validation, ()) if games is None else _held_out_tasks(validation, cell.seed)
        return OfflineRLExperiment(
            make_model=partial(load_model, self.model_args, self.args),
            tokenizer=self.tokenizer,
            make_env=None if games is None else partial(make_env, games.environment, **games.environment_kwargs),
            offline=self.pool.select(offline),
            synthetic=self.pool.select(synthetic) if len(synthetic) else None,
            validation=validation,
            evaluation=evaluation,
            validation_tasks=choosing,
            evaluation_tasks=() if games is None else distinct_tasks(evaluation),
            make_peft_config=partial(get_peft_config, self.model_args),
        )

    def estimate(self, methods: Sequence[str]) -> Estimate:
        start, experiment = time.perf_counter(), self.comparison.experiment(Cell(self.plain, 0))
        with tempfile.TemporaryDirectory() as folder:
            args = replace(self.args, max_steps=_TIMED_UPDATES, auxiliary_steps=1, primary_steps=1)
            trainer = train_method(self.comparison.methods[self.plain], experiment, args, Path(folder))
        judged_losses(trainer, experiment.evaluation)
        timed = trainer.state.log_history[-1]["train_runtime"]
        beside, training = time.perf_counter() - start - timed, timed / _TIMED_UPDATES * self.num_updates
        games = 0.0 if self.games is None else self._seconds_of_games(self.games.num_games, trainer, experiment)
        seconds = {}
        for name in methods:
            choices = self.comparison.num_choices(Cell(name, 0))
            once = beside + training * (1 + COST_LIMIT * self._scores_rows(name))
            seconds[name] = once * num_trainings(choices, self.games is not None) + games
        return Estimate(seconds, used_memory())

    def _seconds_of_games(self, num_games: int, trainer, experiment: OfflineRLExperiment) -> float:
        """All games of a run, from some at one β."""
        start, games = time.perf_counter(), min(_TIMED_GAMES, num_games)
        tasks = choose_tasks(experiment.validation_tasks, games, seed=0)
        play_games(trainer, experiment, BETAS[0], tasks, seed=0)
        return (time.perf_counter() - start) * num_games / games * (len(BETAS) + 1)

    def _scores_rows(self, name: str) -> bool:
        options = self.comparison.methods[name].options
        return replace(self.args, **options).scores_rows

    def why_impossible(self, method: str) -> str | None:
        is_known = "is_noise" in self.pool.column_names
        if self.comparison.methods[method].needs_planted_noise and not is_known:
            return "needs to know which rows are bad, a boolean column `is_noise`"
        if self.comparison.methods[method].candidates and self.games is None:
            return "is chosen by games, which need an `environment`"
        args = replace(self.args, **self.comparison.methods[method].options)
        if args.is_bilevel:
            return why_too_short(self.num_updates, args.auxiliary_steps, args.primary_steps)
        return None

    def fixed_options(self, method: str) -> dict[str, Any]:
        candidates = self.comparison.methods[method].candidates
        fixed = super().fixed_options(method) | (candidates[0].options if candidates else {})
        # Those that can finish are given the share that is asked for.
        return {name: value for name, value in fixed.items() if name != "finish_share"}

    def weighted(self, method: str) -> bool:
        return self.comparison.methods[method].learns_weights

    def chooses(self, method: str) -> bool:
        return self.comparison.methods[method].options.get("method") == "validated"

    def judgement(self, results: Sequence[Result]) -> Judgement:
        weighted = self.weighted_and_equal(results)
        if self.games is not None:
            values, errors = (
                {
                    method: np.array([[result[name]] for result in results if result.method == method])
                    for method in dict.fromkeys(result.method for result in results)
                }
                for name in ("score_mean", "score_se")
            )
            return Judgement(values, *weighted, measure="score", lower_is_better=False, errors=errors)
        values = self.values_by_row(results, lambda result: self._judged(result)[:2])
        return Judgement(values, *weighted, measure="policy loss", unit=" nats per token")

    def _judged(self, result: Result) -> tuple[np.ndarray, np.ndarray, float]:
        """Numbers of the trusted rows that judge, those of at least the median return, their losses at the best β, and it."""
        judging = self.judging_rows(result.seed)
        is_high = is_high_return(self.returns[judging])
        losses = np.array(result["policy_losses"])[:, is_high]
        best = int(np.nanmean(losses, axis=1).argmin())
        return judging[is_high], losses[best], JUDGED_BETAS[best]

    def prepare_kept(self, results: Sequence[Result]) -> None:
        betas = [self._judged(result)[2] if self.games is None else result["beta"] for result in results]
        self.comparison.kept_beta = median_low(betas)
        self.comparison.kept_choice = mode(result["choice"] for result in results)

    def chosen(self, results: Sequence[Result]) -> dict[str, str]:
        by_method: dict[str, list[str]] = {}
        for result in results:
            by_method.setdefault(result.method, []).append(result["choice"])
        said = {}
        for name, choices in by_method.items():
            counts = Counter(choices)
            if self.comparison.num_choices(Cell(name, results[0].seed)) > 1:
                parts = [f"`{choice}` in {count} of {len(choices)} splits" for choice, count in counts.items()]
                said[name] = ", ".join(parts)
        return said

    def judged_on(self, results: Sequence[Result]) -> str:
        seeds = len({result.seed for result in results})
        splits = f", in each of {seeds} splits" if seeds > 1 else ""
        if self.games is not None:
            return f"{self.games.num_games} games of tasks of trusted rows that no method saw{splits}"
        rows = len(self._judged(results[0])[0])
        return f"{rows} trusted trajectories of high return that no method saw{splits}"

    def scores(self, cell: Cell) -> np.ndarray:
        table = pd.read_parquet(self.comparison.run_folder(cell) / WEIGHTS_NAME)
        # Two-stage, which can take the place of weights, has the trusted rows behind the pool's.
        table = table[table["index"] < len(self.pool)]
        weights = np.ones(len(self.pool))
        weights[self.order[table["index"]]] = table["weight"]
        is_read = np.zeros(len(self.pool), bool)
        is_read[self.order[table["index"]]] = table["score"].notna()
        return np.log(np.where(is_read, np.maximum(weights, np.finfo(float).tiny), 1.0))

    def _preferred(self, results: Sequence[Result], reports: Sequence[dict]) -> str:
        """A clause on the splits in which one method's weights were used."""
        other = self.comparison.methods[results[0].method].where_near_chance
        if other is not None:
            used = sum(result["choice"] != other for result in results)
            said = f"they were used in {used} of {len(results)} splits"
            return said if used == len(results) else f"{said}, and `{other}` in the others, where they are near chance"
        used = sum(report["effective_sample_size"] < 0.999 * report["num_rows"] for report in reports)
        return (
            "cross-validation between folds of the trusted rows preferred them to equal ones in "
            f"{used} of {len(reports)} splits"
        )

    def confidence(self, results: Sequence[Result]) -> str | None:
        reports = [result["report"] for result in results if result["report"] is not None]
        if not reports:
            return None
        said = f"How sure the weights of the pool are: {self._preferred(results, reports)}"
        ranks = [WeightConfidence(**report["confidence"]) for report in reports if report["confidence"] is not None]
        if not ranks:
            return f"{said}."
        near = sum(rank.is_near_chance for rank in ranks) * 2 > len(ranks)
        return (
            f"{said}. Trusted rows rank above {np.mean([rank.auc for rank in ranks]):.0%} of the pool by scores that they had no part "
            f"in (chance: 50 ± {np.mean([rank.chance_error for rank in ranks]):.0%})"
            f"{': near chance, so do not trust weights and worst rows' if near else ''}."
        )


def _check_tasks(rows: Dataset, name: str) -> None:
    missing = [i for i, row in enumerate(rows) if row.get("task") is None]
    if missing:
        raise ValueError(
            f"{name}, row {missing[0]}, column `task`: is missing; games are played on the trusted rows' tasks"
        )


def _task_names(rows: Dataset) -> list[str]:
    tasks = rows["task"] if "task" in rows.column_names else ()
    return [as_task(task).id for task in tasks if task is not None]


def _held_out_tasks(rows: Dataset, seed: int) -> tuple[Dataset, Sequence[Task]]:
    """The trusted rows that a method trains on, and tasks of others that choose its β and how it finishes; where there are too few
    tasks, all rows and their tasks."""
    names = _task_names(rows)
    if len(set(names)) < FEWEST_CHOOSING:
        return rows, distinct_tasks(rows)
    training, choosing = split_trusted(names, 1 / 3, seed, at_least=0)
    return rows.select(training), distinct_tasks(rows.select(choosing))
