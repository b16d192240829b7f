"""Methods of offline RL side by side: their cells, what the numbers say, table and pictures."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache
from trl import ModelConfig

from boost_trl.comparison.cells import Cell, Comparison, run_cells
from boost_trl.comparison.offline_rl.arguments import ComparisonArguments, settings_of
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.games import BETAS, one_game, play_method
from boost_trl.comparison.offline_rl.kept_policy import candidates, keep_best_policy
from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.offline_rl.pictures import PICTURES, draw_weight_against_distance, draw_weights_by_kind
from boost_trl.comparison.offline_rl.training import auc_of_planted_truth, train_method
from boost_trl.comparison.report import Report
from boost_trl.comparison.results import Result, aggregate, n_eff, paired_difference, standard_error
from boost_trl.tables import number, plus_minus
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


HEADROOMS = (("oracle", "uniform"), ("oracle_mix", "uniform_mix"))
CONTROLS = {
    "boost": ("vanilla_validation", "two_stage", "uniform"),
    "validated": ("vanilla_validation", "two_stage", "uniform", "uniform_mix", "return_filter", "loss_filter"),
}
DRAWN = "boost"
_MEANS = ("score_mean", "success_rate", "mean_turns", "effective_sample_size", "num_rows", "weights_auc", "seconds")
_MEANS += ("num_tokens", "eval_loss")
COLUMNS = {
    "method": lambda row: row["label"],
    "score": lambda row: plus_minus(row["score_mean"], row["score_se"]),
    "success": lambda row: f"{row['success_rate']:.0%}",
    "turns": lambda row: f"{row['mean_turns']:.1f}",
    "n_eff / rows": lambda row: f"{row['effective_sample_size']:.0f} / {row['num_rows']:.0f}",
    "AUC": lambda row: number(row["weights_auc"]),
    "β": lambda row: f"{row['beta']:g}",
    "held-out loss": lambda row: f"{row['eval_loss']:.2f}",
    "M tokens": lambda row: f"{row['num_tokens'] / 1e6:.2f}",
    "seconds": lambda row: f"{row['seconds']:.1f}",
}
NOTES = (
    "`score` is the environment's (mean ± standard error: over worlds, or over games for one world). n_eff = "
    "1/Σw̃² over the training rows. AUC: how well the weights tell good offline rows from planted noise; – for "
    "constant weights. β was chosen by games on validation tasks. All rows had the same number of policy updates."
)


class Options(NamedTuple):
    """What `parse_arguments` returns."""

    arguments: ComparisonArguments
    training_args: BilevelOfflineRLConfig
    model_args: ModelConfig


class OfflineRLComparison(Comparison):
    """
    Args:
        folder (`str` or `Path`): gets `runs/<seed>-<method>-<settings>/`.
        options (`Callable`): [`Options`] of a cell, without its seed and folders.
        make_experiment (`Callable`): model, data and games of a cell, an [`OfflineRLExperiment`].
        drawn (`str`, *optional*, defaults to `"boost"`): the method whose weights are drawn; `None`: no method.
        keeps (`Callable`, *optional*): whether a cell's policy is saved, at its chosen β, with one of its games.
        hub_name (`Callable`, *optional*): what a cell's repository on the Hub is called after the folder, if it is pushed.
    """

    methods = METHODS

    def __init__(
        self,
        folder: str | Path,
        options: Callable[[Cell], Options],
        make_experiment: Callable[[Cell], OfflineRLExperiment],
        drawn: str | None = DRAWN,
        keeps: Callable[[Cell], bool] = lambda cell: False,
        hub_name: Callable[[Cell], str] = lambda cell: f"{cell.method}-{cell.seed}",
    ):
        super().__init__(folder, make_experiment)
        self.options, self.drawn, self.keeps, self.hub_name = options, drawn, keeps, hub_name

    def settings(self, cell: Cell) -> dict[str, Any]:
        return settings_of(*self.options(cell))

    def name(self, cell: Cell) -> str:
        digest = hashlib.sha256(json.dumps(self.settings(cell), sort_keys=True).encode()).hexdigest()[:8]
        return "-".join(part for part in (cell.setting, str(cell.seed), cell.method, digest) if part)

    def steps(self, cell: Cell) -> int:
        """Training and sets of games."""
        return 2 + len(BETAS) + (len(BETAS) - 1) * self.methods[cell.method].shows_best_beta

    def run(self, cell: Cell, advance: Callable[[], object] = lambda: None) -> Result:
        """Train and play; `seconds` covers training with its preparation, not the games."""
        method, experiment, folder = self.methods[cell.method], self.experiment(cell), self.run_folder(cell)
        arguments, training_args, _ = self.options(cell)
        args = replace(
            training_args,
            seed=cell.seed,
            cache_dir=training_args.cache_dir or str(self.folder / "cache"),
            hub_model_id=f"{training_args.hub_model_id or self.folder.name}-{self.hub_name(cell)}",
        )
        start = time.perf_counter()
        trainer = train_method(method, experiment, args, folder)
        seconds = time.perf_counter() - start
        advance()
        metrics = play_method(
            trainer,
            experiment,
            validation_games=arguments.validation_games,
            games=arguments.games,
            seed=args.seed,
            show_best_beta=method.shows_best_beta,
            advance=advance,
        )
        weights = np.asarray(trainer.example_weights()["weight"])
        result = Result(
            method=method.name,
            label=method.label,
            seed=cell.seed,
            setting=cell.setting,
            effective_sample_size=n_eff(weights),
            num_rows=len(weights),
            weights_auc=auc_of_planted_truth(trainer, weights),
            eval_loss=trainer.evaluate()["eval_loss"],
            seconds=seconds,
            metrics={
                **{name: metrics[name] for name in ("score_mean", "score_se", "success_rate", "mean_turns", "beta")},
                "num_tokens": float(trainer.num_tokens),
                "num_tasks": len(experiment.evaluation_tasks),
                "num_shared_tasks": experiment.num_shared_tasks,
                "validation_scores": metrics["validation_scores"],
                "best_beta_score": metrics["best_beta_score"],
                "report": trainer.validated_report,
                "distance_correlation": None,
                "game": None,
                "environment_kwargs": None,
            },
        )
        if self.keeps(cell):
            result.metrics["game"] = one_game(trainer, experiment, result["beta"])
            result.metrics["environment_kwargs"] = getattr(experiment.make_env, "keywords", None)
        if self.keeps(cell) or args.push_to_hub:
            trainer.args.beta = result["beta"]
            trainer.save_model(_internal_call=True)  # no upload yet
        if args.push_to_hub:
            logged = ("score_mean", "score_se", "success_rate", "beta")
            trainer.log({f"eval_{name}": result[name] for name in logged})
            trainer.create_model_card()  # now with the results
            trainer.push_to_hub()
        if method.name == self.drawn:
            if PartialState().is_main_process:
                folder.mkdir(parents=True, exist_ok=True)
                draw_weights_by_kind(trainer, folder / PICTURES[0])
                correlation = draw_weight_against_distance(trainer, folder / PICTURES[1])
                result.metrics["distance_correlation"] = correlation
        del trainer
        clear_device_cache(garbage_collection=True)
        return result

    def report(self, title: str, results: Sequence[Result], settings: dict[str, Any]) -> Report:
        """
        Say what came out, and fetch the pictures.

        Args:
            title (`str`): of the report.
            results (`Sequence[Result]`): of all methods and seeds. Pictures are about the last seed.
            settings (`dict`): what all cells share.
        """
        return Report(
            title=title,
            rows=summarize(results),
            results=results,
            columns=COLUMNS,
            findings=findings(results),
            settings=settings,
            notes=NOTES,
            pictures=self._pictures(results),
        )

    def _pictures(self, results: Sequence[Result]) -> list[str]:
        drawn = [result for result in results if result.method == self.drawn]
        if not drawn:
            return []
        last = drawn[-1]
        for name in PICTURES:
            shutil.copy(self.run_folder(Cell(last.method, last.seed, last.setting)) / name, self.folder / name)
        correlation = last["distance_correlation"]
        ending = "." if correlation is None else f", Pearson r = {correlation:.2f}."
        return [
            f"![Weights by kind of row]({PICTURES[0]})\n\n{last.label}'s weights, world {last.seed}.",
            f"![Weight against distance]({PICTURES[1]})\n\nSynthetic rows: weight against the distance to the nearest "
            f"offline rows{ending}",
        ]


def compare(
    title: str,
    arguments: ComparisonArguments,
    training_args: BilevelOfflineRLConfig,
    model_args: ModelConfig,
    make_experiment: Callable[[int], OfflineRLExperiment],
) -> list[Result]:
    """Run every method in every world and report.

    `output_dir` gets `results.json` (one object per method), `runs.json` (one per method and world), `report.md`, two
    pictures, and in `policy` what `boost-trl rollout` plays: in the last world, the policy of the method of highest score
    among those that learn weights, or among all but the oracles if none does. `runs/<seed>-<method>-<settings>` holds what
    training saves and `result.json`, from which a comparison that was killed goes on: what has a result under the same
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
        report.write(comparison.folder)
        report.print()
        run_folders = {cell.method: comparison.run_folder(cell) for cell in kept}
        shown = keep_best_policy(report.rows, results, run_folders, comparison.folder, arguments.environment)
        if shown is not None:
            print(f"\n{shown}")
        print(
            f"\n{comparison.folder}/report.md has the table and the pictures; it took {time.perf_counter() - start:.0f} s. "
            f"Results that were there already are reused: delete {comparison.folder}/runs to run them again"
        )
    state.wait_for_everyone()
    state.destroy_process_group()
    return results


def summarize(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One object per method: means over worlds; `score_se` over worlds, or over games when there is one world.

    `beta` is the most frequent one, the smaller at a tie.
    """

    def over_worlds(group: Sequence[Result]) -> dict[str, Any]:
        betas = sorted(result["beta"] for result in group)
        scores = [result["score_mean"] for result in group]
        return {
            "worlds": len(group),
            "score_se": standard_error(scores) if len(group) > 1 else group[0]["score_se"],
            "beta": max(betas, key=betas.count),
        }

    return aggregate(results, _MEANS, over_worlds)


def difference(results: Sequence[Result], method: str, control: str) -> tuple[float, float] | None:
    """Mean ± SE of (score of `method` − score of `control`), paired by world; for one world the SE is over games."""
    return paired_difference(results, method, control, "score_mean", error="score_se")


def findings(results: Sequence[Result]) -> list[str]:
    """What the numbers say, losses included."""
    lines = []
    for oracle, control in HEADROOMS:
        headroom = difference(results, oracle, control)
        if headroom is not None:
            mean, error = headroom
            verdict = "weights have something to gain here" if mean > 2 * error else "no clear room for weights here"
            labels = f"{METHODS[oracle].label} − {METHODS[control].label}"
            lines.append(f"Headroom ({labels}): {plus_minus(mean, error, '+.2f')}: {verdict}.")
    for method, controls in CONTROLS.items():
        differences = {control: difference(results, method, control) for control in controls}
        parts = [
            f"{METHODS[control].label} {plus_minus(*found, '+.2f')}"
            for control, found in differences.items()
            if found is not None
        ]
        if parts:
            lines.append(f"{METHODS[method].label} minus {', '.join(parts)}.")
    shared, tasks = ({result[name] for result in results} for name in ("num_shared_tasks", "num_tasks"))
    lines.append(
        f"Games are drawn from {_range(tasks)} tasks of held-out categories; {_range(shared)} of them have a validation row, "
        "which every method but Vanilla and Vanilla+Syn trains on."
    )
    best = [result["best_beta_score"] for result in results if result["best_beta_score"] is not None]
    if best:
        lines.append(
            f"Uniform mix at the β that is best on the evaluation games themselves: {sum(best) / len(best):.2f}."
        )
    for result in results:
        if result["report"] is not None and "reason" in result["report"]:
            lines.append(f"Validated reweighting's guard: {result['report']['reason']}.")
    if lines and sum(result.method == results[0].method for result in results) == 1:
        lines.append(
            "One world only: the errors are over games and say nothing about other worlds; try `--seeds 0 1 2`."
        )
    return lines


def _range(values: set[int]) -> str:
    return f"{min(values)} to {max(values)}" if len(values) > 1 else str(min(values))
