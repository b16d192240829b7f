"""The study behind "How validated reweighting chooses" in docs/reproductions.md. Resumable cell by cell.

    python examples/guard_study.py
    python examples/guard_study.py --report docs/data/guard_study.json

The first command trains and plays every candidate of the cross-validation of `method="validated"`, and some controls, in
the three worlds (about 40 minutes on one core). The second writes what there is to one file and prints the regret of every way
to choose: the score of the best candidate minus that of the chosen one.
"""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from trl import TrlParser

from boost_trl.comparison.cells import Cell, run_cells, saved_results, write_rows
from boost_trl.comparison.offline_rl.methods import METHODS, OfflineRLMethod
from boost_trl.comparison.offline_rl.study import Place, Study, by_pool
from boost_trl.comparison.results import standard_error
from boost_trl.tables import MISSING, markdown_table, plus_minus
from boost_trl.trainer.offline_rl.weight_candidates import CANDIDATES, FINISH_SHARES


POOLS = {"twenty_questions": ("bot", "diverse", "stale", "none"), "car_dealer": ("bot",), "webshop": ("bot",)}
# What the default gives here for a cross-validation of eight candidates; without one it would be longer.
SCORE_STEPS = 72
FOLDS = (2, 5)


@dataclass
class StudyArguments:
    folder: str = field(default="outputs/guard_study", metadata={"help": "Where cells and models are kept."})
    seeds: list[int] = field(
        default_factory=lambda: [5, 6], metadata={"help": "Seeds; each draws data and, in two worlds, the world."}
    )
    games: int = field(default=512, metadata={"help": "Games behind every score."})
    report: str | None = field(
        default=None, metadata={"help": "Write all results to this file, print tables, run nothing."}
    )


def all_methods() -> dict[str, OfflineRLMethod]:
    """`validated` with its cross-validation, its candidates one by one, and controls."""
    guards = [
        OfflineRLMethod(
            f"{number} folds",
            f"Validated, {number} folds",
            {"method": "validated", "guard_folds": number, "finish_share": None},
        )
        for number in FOLDS
    ]
    candidates = [
        OfflineRLMethod.of_candidate(replace(weights, finish_share=share))
        for share in FINISH_SHARES
        for weights in CANDIDATES
    ]
    controls = [METHODS["two_stage"], METHODS["loss_filter"], METHODS["oracle_mix"]]
    finished = [method.finishing(0.3) for method in controls[1:]]
    return {method.name: method for method in (*guards, *candidates, *controls, *finished)}


class GuardStudy(Study):
    methods = all_methods()


def all_cells(seeds: list[int]) -> list[Cell]:
    """The candidates of all pools first, then the controls."""
    names = list(GuardStudy.methods)
    number = len(FOLDS) + len(CANDIDATES) * len(FINISH_SHARES)
    return [
        Cell(name, seed, f"{environment}-{noise}")
        for part in (names[:number], names[number:])
        for seed in seeds
        for environment, pools in POOLS.items()
        for noise in pools
        for name in part
        if noise != "none" or not GuardStudy.methods[name].needs_planted_noise
    ]


def make_study(arguments: StudyArguments) -> GuardStudy:
    folder = Path(arguments.folder)

    def place(cell: Cell) -> Place:
        environment, noise = cell.setting.split("-")
        cache_dir = str(folder / "cache" / f"{cell.setting}-{cell.seed}")
        options = {"noise": noise, "games": arguments.games, "score_steps": SCORE_STEPS, "cache_dir": cache_dir}
        return Place(environment, options)

    return GuardStudy(folder, place)


Results = dict[str, dict[str, Any]]


def ways_to_choose(candidates: list[str]) -> dict[str, Callable[[Results], str]]:
    """Functions from the results of one pool by method to the name of the chosen candidate."""

    def allowed(name: str, finishes: bool) -> bool:
        return finishes or "finish" not in name

    def by(measure: str, folds: int, finishes: bool, sign: float) -> Callable[[Results], str]:
        def choose(results: Results) -> str:
            judged = [
                each for each in results[f"{folds} folds"]["report"]["candidates"] if allowed(each["name"], finishes)
            ]
            # The first of equals: uniform weights.
            return max(judged, key=lambda each: sign * each[measure])["name"]

        return choose

    def by_games(finishes: bool) -> Callable[[Results], str]:
        return lambda results: max(
            (name for name in candidates if allowed(name, finishes)),
            key=lambda name: max(results[name]["validation_scores"].values()),
        )

    ways: dict[str, Callable[[Results], str]] = {
        f"always {name}": lambda results, name=name: name for name in ("uniform", "high_return@0.4", "all@0.4")
    }
    for finishes, ending in ((False, ""), (True, ", finishing too")):
        for folds in FOLDS:
            ways[f"accuracy, {folds} folds{ending}"] = by("accuracy", folds, finishes, 1)
            ways[f"cross-entropy, {folds} folds{ending}"] = by("cross_entropy", folds, finishes, -1)
        ways[f"games on validation tasks{ending}"] = by_games(finishes)
    return ways


def scores_table(pools: dict[tuple[str, int], Results], methods: list[str]) -> str:
    """Markdown: the score of every method (columns) on every pool (rows), mean ± SE over games."""
    lines = [["pool, seed", *methods]]
    for (setting, seed), results in pools.items():
        rows = [results.get(name) for name in methods]
        cells = [plus_minus(row["score_mean"], row["score_se"]) if row else MISSING for row in rows]
        lines.append([f"{setting}, {seed}", *cells])
    return markdown_table(lines)


def regrets_table(pools: dict[tuple[str, int], Results], candidates: list[str]) -> str:
    """Markdown: regret of every way to choose, mean ± SE over the pools of each world, and the pool where it is largest."""
    worlds = sorted({setting.split("-")[0] for setting, _ in pools})
    lines = [["chosen by", *worlds, "largest"]]
    for label, choose in ways_to_choose(candidates).items():
        regrets = {}
        for pool, results in pools.items():
            best = max(results[name]["score_mean"] for name in candidates)
            regrets[pool] = best - results[choose(results)]["score_mean"]
        cells = []
        for world in worlds:
            found = [regret for (setting, _), regret in regrets.items() if setting.startswith(world)]
            cells.append(plus_minus(float(np.mean(found)), standard_error(found)))
        (setting, seed), largest = max(regrets.items(), key=lambda item: item[1])
        lines.append([label, *cells, f"{largest:.2f} ({setting}, {seed})"])
    return markdown_table(lines)


def report(arguments: StudyArguments) -> None:
    rows = [result.to_dict() for result in saved_results(make_study(arguments), all_cells(arguments.seeds))]
    write_rows(arguments.report, rows)
    names = list(GuardStudy.methods)
    candidates = names[len(FOLDS) : len(FOLDS) + len(CANDIDATES) * len(FINISH_SHARES)]
    needed = {*names[: len(FOLDS)], *candidates}
    whole = {pool: results for pool, results in by_pool(rows).items() if needed <= results.keys()}
    if not whole:
        print("no pool has all of its candidates yet")
        return
    print(f"{scores_table(whole, names[len(FOLDS) :])}\n\n{regrets_table(whole, candidates)}")


def main(arguments: StudyArguments) -> None:
    if arguments.report is not None:
        report(arguments)
        return
    run_cells(make_study(arguments), all_cells(arguments.seeds))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    parser = TrlParser(StudyArguments)
    main(parser.parse_args_and_config()[0])
