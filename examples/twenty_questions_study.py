"""The study behind docs/reproductions.md: do learned weights pay, and where? Resumable cell by cell.

    python examples/twenty_questions_study.py --processes 2
    python examples/twenty_questions_study.py --report docs/data/twenty_questions_study.json

The first command runs every cell that has no result yet (about 80 minutes on two idle cores) and can be stopped at any time; the
second writes the results so far to one file and prints the tables.
"""

import logging
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from trl import TrlParser

from boost_trl.comparison.cells import Cell, run_cells, run_shards, saved_results, shard, write_rows
from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.offline_rl.study import Place, Study, differences_table, scores_table


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
    shard: str | None = field(
        default=None, metadata={"help": "Run the i-th of n shards of the worlds only, as i/n, on any machine."}
    )
    games: int = field(default=512, metadata={"help": "Games behind every score."})
    report: str | None = field(
        default=None, metadata={"help": "Write all results to this file, print tables, run nothing."}
    )


def setting(backbone: str, algorithm: str, pool: str, world: int) -> str:
    return f"{backbone}-{algorithm}-{pool}-{world}"


def parts(name: str) -> dict[str, str | int]:
    """What a setting's name says."""
    backbone, algorithm, pool, world = name.split("-")
    return {"backbone": backbone, "algorithm": algorithm, "pool": pool, "world": int(world)}


def all_cells() -> list[Cell]:
    """Most informative first: one seed of everything, then the other."""
    cells = []
    for seed in SEEDS:
        for algorithm in ("mc", "ilql"):
            for world in WORLDS:
                for pool in POOLS:
                    cells += [Cell(method, seed, setting("frozen", algorithm, pool, world)) for method in METHODS]
            if algorithm == "mc":
                for world in TRAINED["worlds"]:
                    for pool in TRAINED["pools"]:
                        cells += [Cell(m, seed, setting("trained", "mc", pool, world)) for m in TRAINED["methods"]]
    return [
        cell
        for cell in cells
        if parts(cell.setting)["pool"] != "clean" or not METHODS[cell.method].needs_planted_noise
    ]


def place(cell: Cell, folder: Path, games: int) -> Place:
    said = parts(cell.setting)
    options = {
        "noise": "none" if said["pool"] == "clean" else said["pool"],
        "algorithm": said["algorithm"],
        "games": games,
        "cache_dir": str(folder / "cache" / f"{said['world']}-{cell.seed}"),
    }
    if said["backbone"] == "trained":
        # The whole network moves: the heads' rate would undo what it knows.
        options |= {"train_backbone": True, "learning_rate": 1e-3}
    return Place("twenty_questions", options, number=said["world"])


def make_study(arguments: StudyArguments) -> Study:
    folder = Path(arguments.folder)
    return Study(folder, lambda cell: place(cell, folder, arguments.games))


def report(arguments: StudyArguments) -> None:
    results = saved_results(make_study(arguments), all_cells())
    rows = [{**parts(result.setting), **result.to_dict()} for result in results]
    write_rows(arguments.report, rows)
    print(f"{len(rows)} of {len(all_cells())} cells\n")
    for backbone, algorithm in (("frozen", "mc"), ("frozen", "ilql"), ("trained", "mc")):
        chosen = [row for row in rows if (row["backbone"], row["algorithm"]) == (backbone, algorithm)]
        if not chosen:
            continue
        runs = len({(row["world"], row["seed"]) for row in chosen})
        print(f"### {algorithm.upper()}, {backbone} backbone ({runs} runs)\n\n{scores_table(chosen, POOLS)}\n")
        for method in ("boost", "validated"):
            print(f"{differences_table(chosen, method, CONTROLS, POOLS)}\n")


def main(arguments: StudyArguments) -> None:
    if arguments.report is not None:
        report(arguments)
        return
    cells, study = all_cells(), make_study(arguments)
    if arguments.shard is not None:
        mine = shard(study, cells, arguments.shard, group=lambda cell: parts(cell.setting)["world"])
        run_cells(study, mine, progress=False)
    elif arguments.processes > 1:
        command = [__file__, "--folder", arguments.folder, "--games", str(arguments.games)]
        run_shards(command, arguments.processes, study.folder, len(cells))
    else:
        run_cells(study, cells)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    parser = TrlParser(StudyArguments)
    main(parser.parse_args_and_config()[0])
