"""Methods of supervised fine-tuning side by side: their cells, what the numbers say, table and pictures."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils.memory import clear_device_cache
from trl import SFTConfig

from boost_trl.analysis.run_files import epoch_weights
from boost_trl.comparison.cells import Cell, Comparison
from boost_trl.comparison.report import Report
from boost_trl.comparison.results import Result, aggregate, paired_difference, standard_error
from boost_trl.comparison.sft.experiment import SFTExperiment
from boost_trl.comparison.sft.methods import SFT_METHODS
from boost_trl.comparison.sft.pictures import draw_answer_lengths, draw_weights_over_training, questions_page
from boost_trl.comparison.sft.training import train_and_evaluate, training_rows
from boost_trl.comparison.sft.verdict import bad_rows, best, losses_picture, method_of, tried, verdict
from boost_trl.files import write_whole
from boost_trl.selection import prefers_weights
from boost_trl.tables import number, plus_minus


GUARDED, CONTROL = "rank_token", "uniform"
CONTROLS = (
    *(
        "uniform",
        "mixing_eight",
        "mixing_half",
        "mixing_one",
        "validation_only",
        "trusted_only",
        "two_stage",
        "finish",
    ),
    *("low_loss", "known_good_mixed", "known_good"),
)
PICTURED = ("bds", "bmo", "rank_token", "online_10", "online_dynamic")
_MEANS = ("eval_loss", "clean_eval_loss", "weights_auc", "loss_auc", "effective_sample_size", "num_rows", "seconds")
COLUMNS = {
    "method": lambda row: row["label"],
    "eval loss": lambda row: (
        plus_minus(row["eval_loss"], row["eval_loss_se"]) if row["seeds"] > 1 else number(row["eval_loss"])
    ),
    "clean loss": lambda row: number(row["clean_eval_loss"]),
    "right answers": lambda row: number(row["exact_answers"], ".0%"),
    "AUC weights": lambda row: number(row["weights_auc"], ".3f"),
    "AUC losses": lambda row: number(row["loss_auc"], ".3f"),
    "n_eff / rows": lambda row: f"{row['effective_sample_size']:.0f} / {row['num_rows']:.0f}",
    "seconds": lambda row: number(row["seconds"], ".1f"),
    "× plain SFT": lambda row: number(row["runtime_ratio"]),
}
NOTES = (
    "`eval loss`: held-out trusted rows; `clean loss`: held-out rows like the pool's good ones; both in nats per token, "
    "± standard error over seeds. `right answers`: share of greedy answers to the trusted rows' questions that are theirs word "
    "for word. `AUC weights`: how well the final weights tell good rows from bad ones; `AUC losses`: "
    "how well the trained model's losses do. n_eff = (Σw)²/Σw². `seconds`: training alone."
)


class SFTComparison(Comparison):
    """A comparison of methods of supervised fine-tuning.

    Args:
        folder (`str` or `Path`): gets `runs/<method>-<seed>/`.
        options (`dict`): fields of [`BilevelSFTSelfRefineConfig`] that all methods share.
        make_experiment (`Callable`): model and data of a cell, an [`SFTExperiment`].
        keeps (`Callable`, *optional*): whether a cell's model is saved; otherwise only its weights are.
    """

    methods = SFT_METHODS

    def __init__(
        self,
        folder: str | Path,
        options: dict[str, Any],
        make_experiment: Callable[[Cell], SFTExperiment],
        keeps: Callable[[Cell], bool] = lambda cell: True,
    ):
        super().__init__(folder, make_experiment)
        self.options, self.keeps = options, keeps

    def name(self, cell: Cell) -> str:
        return "-".join(part for part in (cell.method, str(cell.seed), cell.setting) if part)

    def options_of(self, cell: Cell) -> dict[str, Any]:
        """The options that all methods of a cell's setting share."""
        return self.options

    def settings(self, cell: Cell) -> str:
        method, experiment = self.methods[cell.method], self.experiment(cell)
        datasets = (self._rows(cell), experiment.validation, *experiment.held_out().values())
        rows = hashlib.sha256(repr([dataset.to_list() for dataset in datasets]).encode()).hexdigest()
        plan = [method.stages, method.lowest_losses]
        return repr([sorted({**self.options_of(cell), **method.options}.items()), plan, experiment.model_name, rows])

    def run(self, cell: Cell, advance: Callable[[], object] = lambda: None) -> Result:
        method, experiment = self.methods[cell.method], self.experiment(cell)
        result = train_and_evaluate(
            method,
            experiment,
            self._rows(cell),
            self.options_of(cell),
            self.run_folder(cell),
            cell.seed,
            keeps_model=self.keeps(cell),
            advance=advance,
        )
        clear_device_cache(garbage_collection=True)
        return replace(result, setting=cell.setting)

    def steps(self, cell: Cell) -> int:
        """Updates, where the options say how many."""
        return max(1, self.options_of(cell).get("max_steps", 1))

    def report(self, title: str, results: Sequence[Result]) -> Report:
        """Draw the pictures and say what came out.

        Args:
            title (`str`): of the report.
            results (`Sequence[Result]`): of all methods and seeds. Pictures are about the last seed.
        """
        results = with_guard(results, GUARDED, CONTROL)
        rows = summarize(results)
        has_answers = any(row["exact_answers"] is not None for row in rows)
        return Report(
            title=f"{title}: which way of training pays",
            rows=rows,
            results=results,
            columns={name: cell for name, cell in COLUMNS.items() if name != "right answers" or has_answers},
            findings=findings(results),
            settings=self.options,
            notes=NOTES,
            verdict=verdict(results, rows),
            sections=[
                tried(results, self.options),
                losses_picture(rows, self.folder),
                *self._bad_rows(rows, results[-1].seed),
                *self._pictures({result.method for result in results}, Cell("", results[-1].seed)),
            ],
            about={row["label"]: about for row in rows if (about := method_of(row).about)},
        )

    def _bad_rows(self, rows: Sequence[dict[str, Any]], seed: int) -> list[str]:
        row = best(rows, learned=True)
        if row is None:
            return []
        weights = epoch_weights(self.run_folder(Cell(method_of(row).name, seed)))
        return bad_rows(self.experiment(Cell(row["method"], seed)), weights[-1], row["label"]) if weights else []

    def _rows(self, cell: Cell):
        method = self.methods[cell.method]
        needed = None if method.needs is None else self.run_folder(replace(cell, method=method.needs))
        return training_rows(method, self.experiment(cell), needed)

    def _pictures(self, ran: set[str], last: Cell) -> list[str]:
        shown = {
            self.methods[name].label: self.run_folder(replace(last, method=name)) for name in PICTURED if name in ran
        }
        if not shown:
            return []
        experiment = self.experiment(last)
        draw_weights_over_training(experiment, shown, self.folder / "weights_over_training.png")
        draw_answer_lengths(experiment, shown, self.folder / "answer_lengths.png")
        write_whole(self.folder / "questions.md", questions_page(experiment, shown))
        return [
            f"![Weights over training](weights_over_training.png)\n\nWeights by kind of row, seed {last.seed}.",
            "![Answer lengths](answer_lengths.png)\n\nLength of the answers to the questions that count most.",
            "[Questions with the largest and smallest weights, epoch by epoch](questions.md)",
        ]


def options_of(args: SFTConfig) -> dict[str, Any]:
    """The fields of a configuration that differ from their defaults, without folder and seed: what methods share."""
    return {
        entry.name: value
        for entry in fields(args)
        if entry.init and entry.name not in ("output_dir", "seed")
        if (value := getattr(args, entry.name)) != _default(entry)
    }


def _default(entry: Field) -> Any:
    return entry.default_factory() if entry.default_factory is not MISSING else entry.default


def with_guard(results: Sequence[Result], method: str, control: str) -> list[Result]:
    """`results` and, for each seed in which both ran, what the guard keeps of `method` and `control`: the weights only if
    rows that no training has seen prefer them ([`~selection.guard.prefers_weights`])."""
    by_run = {(result.method, result.seed): result for result in results}
    kept = []
    for (name, seed), result in by_run.items():
        if name == method and (control, seed) in by_run:
            other = by_run[control, seed]
            is_weighted = prefers_weights(result["holdout_losses"], other["holdout_losses"])
            kept.append(
                replace(
                    result if is_weighted else other,
                    method=f"{method}_guarded",
                    label=f"{result.label}, guarded",
                    seconds=result.seconds + other.seconds,
                )
            )
    return [*results, *kept]


def summarize(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One object per method: means over seeds, `eval_loss_se` over seeds, and `runtime_ratio` to plain SFT."""

    def over_seeds(group: Sequence[Result]) -> dict[str, Any]:
        shares = [share for result in group if (share := result.metrics.get("exact_answers")) is not None]
        return {
            "seeds": len(group),
            "eval_loss_se": standard_error([result.eval_loss for result in group if result.eval_loss is not None]),
            "exact_answers": float(np.mean(shares)) if shares else None,
            "exact_answers_se": standard_error(shares) if shares else None,
        }

    rows = aggregate(results, _MEANS, over_seeds)
    plain = next((row["seconds"] for row in rows if row["method"] == "sft"), None)
    for row in rows:
        row["runtime_ratio"] = None if plain is None else row["seconds"] / plain
    return rows


def findings(results: Sequence[Result]) -> list[str]:
    """Paired differences of the selectors to every control, negatives included."""
    lines = []
    num_seeds = len({result.seed for result in results})
    for name in ("validated", f"{GUARDED}_guarded", GUARDED, "bds"):
        label = next((result.label for result in results if result.method == name), None)
        parts = []
        for control in CONTROLS:
            difference = paired_difference(results, name, control, "eval_loss")
            if difference is not None:
                text = plus_minus(*difference, "+.2f") if num_seeds > 1 else f"{difference[0]:+.2f}"
                parts.append(f"{SFT_METHODS[control].label} {text}")
        if parts:
            lines.append(f"Evaluation loss of {label} minus {', '.join(parts)}.")
    by_run = {(result.method, result.seed): result for result in results}
    for (name, seed), result in by_run.items():
        if name == f"{GUARDED}_guarded":
            is_weighted = result["holdout_losses"] == by_run[GUARDED, seed]["holdout_losses"]
            lines.append(f"The guard kept {'the' if is_weighted else 'equal'} weights with seed {seed}.")
    if lines and num_seeds == 1:
        lines.append("One seed only, and single runs vary a lot: try `--seeds 0 1 2`.")
    return lines
