"""The study behind docs/reproductions.md: do learned weights pay, and where? Resumable cell by cell.

    python examples/twenty_questions_study.py --processes 2
    python examples/twenty_questions_study.py --report docs/data/twenty_questions_study.json

The first command runs every cell that has no result yet (about 80 minutes on two idle cores) and can be stopped at any time; the
second writes the results so far to one file and prints the tables.
"""

import json
import logging
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from trl import TrlParser
from twenty_questions import EMBEDDED, Arguments, make_setting

from boost_trl.comparison.arguments import parse_arguments
from boost_trl.comparison.study import Cell, differences_table, load_cells, run_cells, scores_table


POOLS = ("clean", "diverse", "stale", "bot")
# Worlds below 10 were used to choose settings.
WORLDS, SEEDS = (10, 11, 12, 13), (0, 1)
TRAINED = {
    "pools": ("clean", "stale"),
    "worlds": (10, 12),
    "methods": ("uniform", "boost", "validated", "uniform_mix", "oracle"),
}
CONTROLS = (
    "vanilla_validation",
    "two_stage",
    "uniform",
    "uniform_mix",
    "return_filter",
    "loss_filter",
    "oracle",
    "oracle_mix",
)


@dataclass
class StudyArguments:
    folder: str = field(
        default="outputs/twenty_questions_study", metadata={"help": "Where cells and models are kept."}
    )
    processes: int = field(default=1, metadata={"help": "Processes that share the worlds."})
    share: int | None = field(
        default=None, metadata={"help": "Which share of the worlds this process runs; internal."}
    )
    games: int = field(default=512, metadata={"help": "Games behind every score."})
    report: str | None = field(
        default=None, metadata={"help": "Write all results to this file, print tables, run nothing."}
    )


def all_cells() -> list[Cell]:
    """Most informative first: one seed of everything, then the other."""
    from boost_trl.comparison.methods import METHODS

    cells = []
    for seed in SEEDS:
        for algorithm in ("mc", "ilql"):
            for world in WORLDS:
                for pool in POOLS:
                    cells += [Cell(method, pool, algorithm, "frozen", world, seed) for method in METHODS]
            if algorithm == "mc":
                for world in TRAINED["worlds"]:
                    for pool in TRAINED["pools"]:
                        cells += [Cell(m, pool, "mc", "trained", world, seed) for m in TRAINED["methods"]]
    return [cell for cell in cells if cell.pool != "clean" or not METHODS[cell.method].needs_planted_noise]


def arguments_of(cell: Cell, folder: Path):
    """The example's, the trainer's and the model's arguments."""
    options = {
        "noise": "none" if cell.pool == "clean" else cell.pool,
        "algorithm": cell.algorithm,
        "seed": cell.seed,
        "cache_dir": str(folder / "cache" / f"{cell.world}-{cell.seed}"),
        "output_dir": str(folder),
    }
    if cell.backbone == "trained":
        # The whole network moves: the heads' rate would undo what it knows.
        options |= {"train_backbone": True, "learning_rate": 1e-3}
    return parse_arguments(Arguments, {**EMBEDDED, **options}, [])


def run_share(arguments: StudyArguments) -> None:
    folder = Path(arguments.folder)
    mine = [cell for cell in all_cells() if WORLDS.index(cell.world) % arguments.processes == (arguments.share or 0)]
    run_cells(
        mine,
        folder / "cells",
        lambda cell: make_setting(*arguments_of(cell, folder), cell.seed, world=cell.world),
        lambda cell: arguments_of(cell, folder)[1],
        games=arguments.games,
    )


def report(arguments: StudyArguments) -> None:
    results = load_cells(Path(arguments.folder) / "cells")
    if arguments.report != "-":
        Path(arguments.report).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.report).write_text(json.dumps(results, indent=1) + "\n")
    print(f"{len(results)} of {len(all_cells())} cells\n")
    for backbone, algorithm in (("frozen", "mc"), ("frozen", "ilql"), ("trained", "mc")):
        chosen = [row for row in results if (row["backbone"], row["algorithm"]) == (backbone, algorithm)]
        if not chosen:
            continue
        runs = len({(row["world"], row["seed"]) for row in chosen})
        print(f"### {algorithm.upper()}, {backbone} backbone ({runs} runs)\n\n{scores_table(chosen, POOLS)}\n")
        for method in ("boost", "validated"):
            print(f"{differences_table(chosen, method, CONTROLS, POOLS)}\n")


def main(arguments: StudyArguments) -> None:
    if arguments.report is not None:
        report(arguments)
    elif arguments.processes > 1 and arguments.share is None:
        command = [sys.executable, __file__, "--folder", arguments.folder, "--games", str(arguments.games)]
        command += ["--processes", str(arguments.processes), "--share"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        workers = [subprocess.Popen([*command, str(i)], env=environment) for i in range(arguments.processes)]
        sys.exit(max(worker.wait() for worker in workers))
    else:
        run_share(arguments)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    parser = TrlParser(StudyArguments)
    main(parser.parse_args_and_config()[0])
