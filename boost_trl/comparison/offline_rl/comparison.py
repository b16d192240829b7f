"""Methods of offline RL side by side: their cells, what the numbers say, table and pictures."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache
from trl import ModelConfig

from boost_trl.analysis.run_files import open_run
from boost_trl.comparison.cell_files import save_cell_files
from boost_trl.comparison.cells import Cell, Comparison, run_cells
from boost_trl.comparison.offline_rl.arguments import ComparisonArguments, settings_of
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.findings import COLUMNS, NOTES, findings, summarize
from boost_trl.comparison.offline_rl.games import BETAS, play_method, validation_scores
from boost_trl.comparison.offline_rl.kept_policy import candidates, keep_best_policy, save_held_out_tasks
from boost_trl.comparison.offline_rl.methods import METHODS, OfflineRLMethod
from boost_trl.comparison.offline_rl.training import auc_of_planted_truth, train_method
from boost_trl.comparison.offline_rl.verdict import bad_rows, best, scores_picture, tried, verdict, watched_game
from boost_trl.comparison.report import Report
from boost_trl.comparison.results import Result
from boost_trl.environments.base import make_env
from boost_trl.selection.confidence import WeightConfidence
from boost_trl.selection.tempering import effective_sample_size
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.common.weight_files import EXAMPLE_WEIGHTS_NAME


class Options(NamedTuple):
    """Result of `parse_arguments`."""

    arguments: ComparisonArguments
    training_args: BilevelOfflineRLConfig
    model_args: ModelConfig


class _Chosen(NamedTuple):
    """A trainer, what it is called among the choices, its scores by β in validation games, what its weights' scoring or that of
    those that it replaces has said, and seconds of training of all choices."""

    trainer: BilevelOfflineRLTrainer
    name: str
    scores: dict[float, float]
    report: dict[str, Any] | None
    seconds: float = 0.0


def is_near_chance(report: dict[str, Any] | None) -> bool:
    """Whether a report of validated reweighting says that held-out validation rows rank in the pool as chance has it."""
    said = None if report is None else report.get("confidence")
    return said is not None and WeightConfidence(**said).is_near_chance


class OfflineRLComparison(Comparison):
    """A comparison of offline RL methods.

    Args:
        folder (`str` or `Path`): gets `runs/<seed>-<method>-<settings>/`, each with what `save_cell_files` writes.
        options (`Callable`): [`Options`] of a cell, without its seed and folders.
        make_experiment (`Callable`): model, data and games of a cell, an [`OfflineRLExperiment`].
        keeps (`Callable`, *optional*): whether a cell's policy is saved, at its chosen β.
        hub_name (`Callable`, *optional*): what a cell's repository on the Hub is called after the folder, if it is pushed.
    """

    methods: Mapping[str, OfflineRLMethod] = METHODS

    def __init__(
        self,
        folder: str | Path,
        options: Callable[[Cell], Options],
        make_experiment: Callable[[Cell], OfflineRLExperiment],
        keeps: Callable[[Cell], bool] = lambda cell: False,
        hub_name: Callable[[Cell], str] = lambda cell: f"{cell.method}-{cell.seed}",
    ):
        super().__init__(folder, make_experiment)
        self.options, self.keeps, self.hub_name = options, keeps, hub_name

    def settings(self, cell: Cell) -> dict[str, Any]:
        return settings_of(*self.options(cell))

    def name(self, cell: Cell) -> str:
        digest = hashlib.sha256(json.dumps(self.settings(cell), sort_keys=True).encode()).hexdigest()[:8]
        return "-".join(part for part in (cell.setting, str(cell.seed), cell.method, digest) if part)

    def steps(self, cell: Cell) -> int:
        """Training and sets of games."""
        trained = len(self._choices(cell))
        return trained * (1 + len(BETAS)) + 1 + (len(BETAS) - 1) * self.methods[cell.method].shows_best_beta

    def run(self, cell: Cell, advance: Callable[[], object] = lambda: None) -> Result:
        """Train and play; `seconds` covers training with its preparation, not the games, `wall_seconds` everything."""
        start = time.perf_counter()
        method, experiment, folder = self.methods[cell.method], self.experiment(cell), self.run_folder(cell)
        arguments, training_args, _ = self.options(cell)
        args = self._args_of(
            cell,
            cache_dir=training_args.cache_dir or str(self.folder / "cache"),
            hub_model_id=f"{training_args.hub_model_id or self.folder.name}-{self.hub_name(cell)}",
        )
        chosen = self._best_choice(cell, args, advance)
        trainer = chosen.trainer
        played = play_method(
            trainer,
            experiment,
            chosen.scores,
            games=arguments.games,
            seed=args.seed,
            show_best_beta=method.shows_best_beta,
            advance=advance,
        )
        result = self._result(cell, trainer, chosen.seconds, self._metrics(experiment, trainer, played))
        result.metrics["choice"] = chosen.name if len(self._choices(cell)) > 1 else None
        result.metrics["report"] = chosen.report
        if self.keeps(cell) or args.push_to_hub:
            trainer.args.beta = result["beta"]
            trainer.save_model(_internal_call=True)  # no upload yet
        if args.push_to_hub:
            logged = ("score_mean", "score_se", "success_rate", "beta")
            trainer.log({f"eval_{name}": result[name] for name in logged})
            trainer.create_model_card()  # now with the results
            trainer.push_to_hub()
        trainer.save_example_weights(folder)
        if PartialState().is_main_process:
            save_cell_files(folder, trainer.args, trainer.state.log_history, played["games"])
            if self.keeps(cell):
                save_held_out_tasks(experiment.held_out_tasks or experiment.evaluation_tasks, folder)
        result.metrics["wall_seconds"] = time.perf_counter() - start
        del trainer
        clear_device_cache(garbage_collection=True)
        return result

    def _args_of(self, cell: Cell, **options: Any) -> BilevelOfflineRLConfig:
        """Those of a cell's training, with these options."""
        return replace(self.options(cell).training_args, **{"seed": cell.seed, **options})

    def _choices(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """Options of the trainer, by name, among which games on validation tasks choose."""
        arguments, training_args, _ = self.options(cell)
        method = self.methods[cell.method]
        if method.candidates:
            return {candidate.name: candidate.options for candidate in method.candidates}
        if not method.can_finish:
            return {"": {}}
        shares: Sequence[float | None] = arguments.finish_shares or [training_args.finish_share]
        return {f"finish-{share}": {"finish_share": share} for share in shares}

    def _best_choice(self, cell: Cell, args: BilevelOfflineRLConfig, advance: Callable[[], object]) -> "_Chosen":
        """The trainer that is best at its best β in games on validation tasks, the first of equals; or that of the method which
        takes their place."""
        method, experiment, folder = self.methods[cell.method], self.experiment(cell), self.run_folder(cell)
        runs = [(name, method, options) for name, options in self._choices(cell).items()]
        # The same number of games for every method, so that none gains by having more to choose among.
        all_games = self.options(cell).arguments.validation_games
        games, places = max(1, all_games // len(runs)), len(runs) > 1
        best: _Chosen | None = None
        report, seconds = None, 0.0
        while runs:
            name, tried, options = runs.pop(0)
            start = time.perf_counter()
            place = folder / name if places else folder
            trainer = train_method(tried, experiment, replace(args, **options), place)
            seconds += time.perf_counter() - start
            advance()
            if tried.where_near_chance is not None and is_near_chance(trainer.validated_report):
                report, games = trainer.validated_report, all_games
                runs = [(tried.where_near_chance, self.methods[tried.where_near_chance], {})]
                continue
            scores = validation_scores(trainer, experiment, games=games, seed=args.seed, advance=advance)
            if best is None or max(scores.values()) > max(best.scores.values()):
                best = _Chosen(trainer, name, scores, report or trainer.validated_report)
        assert best is not None, "every method has a choice"
        best.trainer.args.output_dir = str(folder)
        return best._replace(seconds=seconds)

    def _result(self, cell: Cell, trainer: BilevelOfflineRLTrainer, seconds: float, metrics: dict[str, Any]) -> Result:
        method = self.methods[cell.method]
        weights = np.asarray(trainer.example_weights()["weight"])
        return Result(
            method=method.name,
            label=method.label,
            seed=cell.seed,
            setting=cell.setting,
            effective_sample_size=effective_sample_size(weights),
            num_rows=len(weights),
            weights_auc=auc_of_planted_truth(trainer.data.train_dataset, weights),
            eval_loss=None if self.experiment(cell).evaluation is None else trainer.evaluate()["eval_loss"],
            seconds=seconds,
            metrics={**metrics, "report": trainer.validated_report},
        )

    def _metrics(
        self, experiment: OfflineRLExperiment, trainer: BilevelOfflineRLTrainer, played: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            **{name: played[name] for name in ("score_mean", "score_se", "success_rate", "mean_turns", "beta")},
            **{name: played[name] for name in ("validation_scores", "best_beta_score")},
            "game_scores": played["games"]["score"][:],
            "num_tokens": float(trainer.num_tokens),
            "num_tasks": len(experiment.evaluation_tasks),
            "num_shared_tasks": experiment.num_shared_tasks,
            "environment": next(iter(getattr(experiment.make_env, "args", ())), None),
            "environment_kwargs": getattr(experiment.make_env, "keywords", None),
        }

    def report(self, title: str, results: Sequence[Result], settings: dict[str, Any]) -> Report:
        """Say what came out, and fetch the pictures.

        Args:
            title (`str`): of the report.
            results (`Sequence[Result]`): of all methods and seeds. Rows and game that are shown are of the last seed.
            settings (`dict`): what all cells share.
        """
        rows = summarize(results)
        return Report(
            title=f"{title}: which way of training pays",
            rows=rows,
            results=results,
            columns=COLUMNS,
            findings=findings(results),
            settings=settings,
            notes=NOTES,
            verdict=verdict(results, rows),
            sections=[tried(results, settings), scores_picture(rows, self.folder), *self._story(results, rows)],
            about={row["label"]: self.methods[row["method"]].about for row in rows},
        )

    def _story(self, results: Sequence[Result], rows: Sequence[dict[str, Any]]) -> list[str]:
        """Rows that the best method's weights found bad in the last world, and a game of its policy."""
        row = best(rows, learned=True) or best(rows, learned=False)
        if row is None:
            return []
        last = next(result for result in reversed(results) if result.method == row["method"])
        folder = self.run_folder(Cell(last.method, last.seed, last.setting))
        found = []
        if (folder / EXAMPLE_WEIGHTS_NAME).is_file():
            name, options = last.metrics.get("environment"), last.metrics.get("environment_kwargs")
            found = bad_rows(open_run(folder), self.folder, name and make_env(name, **(options or {})))
        return [*found, *watched_game(folder, last.label)]


def compare(
    title: str,
    arguments: ComparisonArguments,
    training_args: BilevelOfflineRLConfig,
    model_args: ModelConfig,
    make_experiment: Callable[[int], OfflineRLExperiment],
) -> list[Result]:
    """Run every method in every world and report.

    `output_dir` gets `results.json` (one object per method), `runs.json` (one per method and world), `report.md`, `report.html` with
    verdict, pictures, the rows found bad and a game, and in `policy` what `boost-trl rollout` plays: in the last world, the policy of the method of highest
    score among those that learn weights, or among all but the oracles if none does. `runs/<seed>-<method>-<settings>` holds what
    training and `save_cell_files` save, and `result.json`, from which a comparison that was killed goes on: what has a result under the same
    settings is not run again.

    Args:
        title (`str`): of the report.
        arguments (`ComparisonArguments`), training_args (`BilevelOfflineRLConfig`), model_args (`ModelConfig`): as
            `parse_arguments` returns them.
        make_experiment (`Callable`): the world of a seed; not called for a world whose results are all there.

    Raises:
        ValueError: for an unknown method.
    """
    start = time.perf_counter()
    options = Options(arguments, training_args, model_args)
    seeds = arguments.seeds or [training_args.seed]
    kept: list[Cell] = []
    comparison = OfflineRLComparison(
        training_args.output_dir,
        lambda cell: options,
        lambda cell: make_experiment(cell.seed),
        keeps=lambda cell: cell in kept,
        hub_name=lambda cell: f"{cell.method}-{cell.seed}" if len(seeds) > 1 else cell.method,
    )
    names = [
        name
        for name in comparison.choose(arguments.methods)
        if arguments.noise != "none" or not METHODS[name].needs_planted_noise
    ]
    kept += [Cell(name, seeds[-1]) for name in candidates(names)]
    results = run_cells(comparison, [Cell(name, seed) for seed in seeds for name in names])
    state = PartialState()
    if state.is_main_process:
        report = comparison.report(title, results, settings_of(*options))
        run_folders = {cell.method: comparison.run_folder(cell) for cell in kept}
        played = keep_best_policy(report.rows, results, run_folders, comparison.folder, arguments.environment)
        if played is not None:
            report.sections.append(
                f"Watch it play others, live (with another `--seed` yet others):\n\n```bash\n{played[1]}\n```"
            )
        report.write(comparison.folder)
        report.print()
        if played is not None:
            print(
                f"\n{played[0]}\n\nThat policy is kept. Watch it play others (with another --seed yet others): {played[1]}"
            )
        print(
            f"\n{comparison.folder}/report.html has the table and the pictures; it took {time.perf_counter() - start:.0f} s. "
            f"Results that were there already are reused: delete {comparison.folder}/runs to run them again"
        )
    state.wait_for_everyone()
    state.destroy_process_group()
    return results
