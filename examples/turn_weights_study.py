"""The study behind "Weights per turn" in docs/reproductions.md. Resumable cell by cell.

    python examples/turn_weights_study.py
    python examples/turn_weights_study.py --report docs/data/turn_weights_study.json

The first command trains and plays weights of trajectories and of turns in Twenty Questions' small world, on pools where a bot
takes single turns of the dialogues (about a quarter of a minute per cell on one core). The second writes what there is to one
file and prints the tables.
"""

import json
import logging
import warnings
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from trl import TrlParser

from boost_trl.comparison.cells import Cell, run_cells, saved_results
from boost_trl.comparison.offline_rl.comparison import OfflineRLComparison
from boost_trl.comparison.offline_rl.methods import METHODS, OfflineRLMethod
from boost_trl.comparison.offline_rl.training import turns_auc_of_planted_truth
from boost_trl.comparison.offline_rl.worlds import get_world
from boost_trl.comparison.results import Result, standard_error
from boost_trl.environments.twenty_questions.turn_noise import add_bot_turns
from boost_trl.files import write_whole
from boost_trl.tables import MISSING, markdown_table, plus_minus
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.offline_rl.validated_reweighting import ValidatedWeights, drawn_batches
from boost_trl.trainer.offline_rl.weighted_batches import WeightedBatches


@dataclass
class StudyArguments:
    folder: str = field(default="outputs/turn_weights_study", metadata={"help": "Where cells and models are kept."})
    seeds: list[int] = field(
        default_factory=lambda: [21, 22, 23, 24], metadata={"help": "Seeds; each draws a world, data and training."}
    )
    shares: list[float] = field(
        default_factory=lambda: [0.3, 0.6], metadata={"help": "Shares of all turns that are the bot's."}
    )
    games: int = field(default=512, metadata={"help": "Games behind every score."})
    report: str | None = field(
        default=None, metadata={"help": "Write all results to this file, print tables, run nothing."}
    )


class KnownTurnsTrainer(BilevelOfflineRLTrainer):
    """`method="validated"` with weights that are equal on all turns known to be good, and zero on the bot's."""

    def _known_weights(self) -> np.ndarray:
        rows, store = self.data.train_dataset, self.data.training
        good = [
            not is_noise
            for row, count in zip(store.original_row, store.units.counts)
            for is_noise in rows[int(row)]["noise_turns"][:count]
        ]
        weights = store.units.shares * good
        return weights / weights.sum()

    def _begin_run(self) -> None:
        super()._begin_run()
        self._within_rows = self.data.training.units.within_rows(self._known_weights())

    def _weighted_batches(self) -> WeightedBatches:
        weights = self._known_weights()
        known = ValidatedWeights(weights, weights, {"finish_share": self.args.finish_share})
        return drawn_batches(self.args, known, self.data, self.state.max_steps)


def per_turn(name: str) -> OfflineRLMethod:
    method = METHODS[name]
    return replace(
        method,
        name=f"{name}_turns",
        label=f"{method.label}, per turn",
        options=method.options | {"weight_level": "turn"},
    )


class TurnComparison(OfflineRLComparison):
    methods = {
        method.name: method
        for method in (
            METHODS["uniform"],
            METHODS["boost"],
            per_turn("boost"),
            METHODS["uniform_mix"],
            METHODS["validated"],
            per_turn("validated"),
            replace(
                per_turn("uniform_mix"),
                name="oracle_turns",
                label="Oracle mix, per turn",
                trainer_class=KnownTurnsTrainer,
            ),
        )
    }

    def _result(self, cell: Cell, trainer: BilevelOfflineRLTrainer, seconds: float, played: dict[str, Any]) -> Result:
        result = super()._result(cell, trainer, seconds, played)
        auc = turns_auc_of_planted_truth(trainer.data.train_dataset, trainer.example_weights())
        result.metrics["turns_auc"] = auc
        return result


def make_comparison(arguments: StudyArguments) -> TurnComparison:
    folder = Path(arguments.folder)
    world = replace(
        get_world("twenty_questions"),
        add_noise=lambda rows, env, kind, share, seed: add_bot_turns(rows, env, share, seed),
    )

    @cache
    def options(setting: str, seed: int):
        return world.parse(
            [],
            noise_share=float(setting),
            seed=seed,
            games=arguments.games,
            cache_dir=str(folder / "cache" / f"{setting}-{seed}"),
            output_dir=str(folder),
        )

    def make_experiment(cell: Cell):
        return world.make_experiment(*options(cell.setting, cell.seed), cell.seed)

    return TurnComparison(folder, lambda cell: options(cell.setting, cell.seed), make_experiment, drawn=None)


def all_cells(arguments: StudyArguments) -> list[Cell]:
    return [
        Cell(name, seed, str(share))
        for seed in arguments.seeds
        for share in arguments.shares
        for name in TurnComparison.methods
    ]


def mean_and_error(values: list[float | None], precision: str = ".2f") -> str:
    known = [value for value in values if value is not None]
    return plus_minus(float(np.mean(known)), standard_error(known), precision) if known else MISSING


def table(rows: list[dict[str, Any]], shares: list[str], measure: str) -> str:
    """Markdown: `measure` of every method (rows) on every pool (columns), mean ± SE over seeds."""
    lines = [["method", *(f"{float(share):.0%} of the turns" for share in shares)]]
    for name, method in TurnComparison.methods.items():
        found = [
            [row[measure] for row in rows if (row["method"], row["setting"]) == (name, share)] for share in shares
        ]
        if any(value is not None for values in found for value in values):
            lines.append([method.label, *map(mean_and_error, found)])
    return markdown_table(lines)


def differences(rows: list[dict[str, Any]], shares: list[str]) -> str:
    """Markdown: score of weights per turn minus that of weights per trajectory and of equal weights, paired by seed."""
    scores = {(row["method"], row["setting"], row["seed"]): row["score_mean"] for row in rows}
    lines = [["difference", *(f"{float(share):.0%} of the turns" for share in shares)]]
    pairs = [("boost_turns", "boost"), ("boost_turns", "uniform")]
    pairs += [("validated_turns", other) for other in ("validated", "uniform_mix", "oracle_turns")]
    for name, other in pairs:
        cells = []
        for share in shares:
            seeds = [seed for method, setting, seed in scores if (method, setting) == (name, share)]
            both = [seed for seed in seeds if (other, share, seed) in scores]
            cells.append(mean_and_error([scores[name, share, s] - scores[other, share, s] for s in both], "+.2f"))
        labels = TurnComparison.methods[name].label, TurnComparison.methods[other].label
        lines.append([" − ".join(labels), *cells])
    return markdown_table(lines)


def report(arguments: StudyArguments) -> None:
    comparison = make_comparison(arguments)
    rows = [result.to_dict() for result in saved_results(comparison, all_cells(arguments))]
    for row in rows:
        del row["game_scores"]  # of every game
    if arguments.report != "-":
        write_whole(arguments.report, json.dumps(rows, indent=1) + "\n")
    shares = [str(share) for share in arguments.shares]
    for title, measure in {"Score": "score_mean", "AUC of turns": "turns_auc"}.items():
        print(f"{title}\n\n{table(rows, shares, measure)}\n")
    print(f"Differences of the score\n\n{differences(rows, shares)}")


def main(arguments: StudyArguments) -> None:
    if arguments.report is not None:
        report(arguments)
        return
    run_cells(make_comparison(arguments), all_cells(arguments))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    parser = TrlParser(StudyArguments)
    main(parser.parse_args_and_config()[0])
