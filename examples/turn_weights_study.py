"""The study behind "Weights per turn" in docs/reproductions.md. Resumable cell by cell.

    python examples/turn_weights_study.py
    python examples/turn_weights_study.py --report docs/data/turn_weights_study.json

The first command trains and plays weights of trajectories and of turns in Twenty Questions' small world, on pools where a bot
takes single turns of the dialogues (about a quarter of a minute per cell on one core). The second writes all results that the
folder has to one file and prints the tables.
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

from boost_trl.comparison.cells import RESULT_NAME, Cell, run_cells, write_rows
from boost_trl.comparison.offline_rl.comparison import OfflineRLComparison
from boost_trl.comparison.offline_rl.methods import METHODS, OfflineRLMethod
from boost_trl.comparison.offline_rl.training import turns_auc_of_planted_truth
from boost_trl.comparison.offline_rl.worlds import get_world
from boost_trl.comparison.results import Result, standard_error
from boost_trl.environments.twenty_questions.turn_noise import add_bot_turns
from boost_trl.tables import MISSING, markdown_table, plus_minus
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.offline_rl.validated_reweighting import ValidatedWeights, drawn_batches
from boost_trl.trainer.offline_rl.weighted_batches import WeightedBatches


@dataclass
class StudyArguments:
    folder: str = field(default="outputs/turn_weights_study", metadata={"help": "Where cells and models are kept."})
    seeds: list[int] = field(
        default_factory=lambda: [21, 22, 23], metadata={"help": "Seeds; each draws a world, data and training."}
    )
    shares: list[float] = field(
        default_factory=lambda: [0.6], metadata={"help": "Shares of all turns that are the bot's."}
    )
    world: int | None = field(
        default=None, metadata={"help": "The world of all seeds, which then draw data and training only."}
    )
    methods: list[str] = field(default_factory=lambda: ["all"], metadata={"help": "Methods to run."})
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
        learned = self.methods[cell.method].learns_weights
        truth = trainer.data.train_dataset
        result.metrics["turns_auc"] = turns_auc_of_planted_truth(truth, trainer.example_weights()) if learned else None
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
            noise_share=float(share_of(setting)),
            seed=seed,
            games=arguments.games,
            cache_dir=str(folder / "cache" / f"{setting}-{seed}"),
            output_dir=str(folder),
        )

    def make_experiment(cell: Cell):
        return world.make_experiment(*options(cell.setting, cell.seed), cell.seed, number=arguments.world)

    return TurnComparison(folder, lambda cell: options(cell.setting, cell.seed), make_experiment)


def share_of(setting: str) -> str:
    """Of the bot's turns, of a setting that may name its world too."""
    return setting.split("-")[0]


def all_cells(comparison: TurnComparison, arguments: StudyArguments) -> list[Cell]:
    return [
        Cell(name, seed, f"{share}" if arguments.world is None else f"{share}-world{arguments.world}")
        for seed in arguments.seeds
        for share in arguments.shares
        for name in comparison.choose(arguments.methods)
    ]


def mean_and_error(values: list[float | None], style: str = ".2f") -> str:
    """Mean ± SE, and in brackets of how many."""
    known = [value for value in values if value is not None]
    if not known:
        return MISSING
    mean = float(np.mean(known))
    return f"{plus_minus(mean, standard_error(known), style) if len(known) > 1 else f'{mean:{style}}'} ({len(known)})"


def table(rows: list[dict[str, Any]], shares: list[str], measure: str) -> str:
    """Markdown: `measure` of every method (rows) on every pool (columns), mean ± SE over seeds and their number."""
    lines = [["method", *(f"{float(share):.0%} of the turns" for share in shares)]]
    for name, method in TurnComparison.methods.items():
        ours = [row for row in rows if row["method"] == name]
        found = [[row[measure] for row in ours if share_of(row["setting"]) == share] for share in shares]
        if any(value is not None for values in found for value in values):
            lines.append([method.label, *map(mean_and_error, found)])
    return markdown_table(lines)


def differences(rows: list[dict[str, Any]], shares: list[str]) -> str:
    """Markdown: score of weights per turn minus that of weights per trajectory and of equal weights, paired by seed."""
    scores = {(row["method"], share_of(row["setting"]), row["seed"]): row["score_mean"] for row in rows}
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
    paths = sorted(Path(arguments.folder).glob(f"runs/*/{RESULT_NAME}"))
    rows = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    for row in rows:
        del row["settings"], row["game_scores"]
    write_rows(arguments.report, rows)
    shares = sorted({share_of(row["setting"]) for row in rows})
    for title, measure in {"Score": "score_mean", "AUC of turns": "turns_auc"}.items():
        print(f"{title}\n\n{table(rows, shares, measure)}\n")
    print(f"Differences of the score\n\n{differences(rows, shares)}")


def main(arguments: StudyArguments) -> None:
    if arguments.report is not None:
        report(arguments)
        return
    comparison = make_comparison(arguments)
    run_cells(comparison, all_cells(comparison, arguments))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    parser = TrlParser(StudyArguments)
    main(parser.parse_args_and_config()[0])
