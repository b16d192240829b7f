"""The study behind "How small may the heads be?" in docs/value_policy.md. Resumable cell by cell.

    python examples/head_rank_study.py
    python examples/head_rank_study.py --report docs/data/head_rank_study.json

Policies of Twenty Questions' small world on a clean pool, with equal weights, that differ by the rank of their Q heads only.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from trl import TrlParser

from boost_trl.comparison.cells import Cell, run_cells, saved_results, write_rows
from boost_trl.comparison.offline_rl.study import Place, Study, by_pool
from boost_trl.comparison.results import standard_error
from boost_trl.tables import markdown_table, plus_minus


ALGORITHMS = ("mc", "ilql")
FULL = "full"
RANKS = (FULL, "32", "16", "8", "4")
METHOD = "uniform_mix"
# Vocabulary and width of models, and the heads that an algorithm has.
MODELS = {"SmolLM2-135M": (49_152, 576), "Llama-3.2-1B": (128_256, 2048), "Llama-3.1-8B": (128_256, 4096)}
HEADS = {"mc": 1, "ilql": 2}
# Parameter, gradient and Adam's two moments, float32.
BYTES = 16


@dataclass
class StudyArguments:
    folder: str = field(default="outputs/head_rank_study", metadata={"help": "Where cells and models are kept."})
    seeds: list[int] = field(
        default_factory=lambda: [41, 42, 43], metadata={"help": "Seeds; each draws data and the world."}
    )
    games: int = field(default=256, metadata={"help": "Games behind every score."})
    report: str | None = field(
        default=None, metadata={"help": "Write all results to this file, print tables, run nothing."}
    )


def all_cells(seeds: Sequence[int]) -> list[Cell]:
    return [Cell(METHOD, seed, f"{algorithm}-{rank}") for seed in seeds for algorithm in ALGORITHMS for rank in RANKS]


def make_study(arguments: StudyArguments) -> Study:
    folder = Path(arguments.folder)

    def place(cell: Cell) -> Place:
        algorithm, rank = cell.setting.split("-")
        options = {"noise": "none", "dialogues": 2000, "unseen_tasks": True, "games": arguments.games}
        options |= {"algorithm": algorithm, "cache_dir": str(folder / "cache" / str(cell.seed))}
        return Place("twenty_questions", options if rank == FULL else options | {"value_head_rank": int(rank)})

    return Study(folder, place)


def scores_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: score by rank, and what a lower rank loses, paired by seed; mean ± SE over the seeds that have every rank."""
    results = {pool: found[METHOD]["score_mean"] for pool, found in by_pool(rows).items() if METHOD in found}
    lines = [["rank (width 64)", *(f"{name}{part}" for name in ALGORITHMS for part in ("", ", minus full"))]]
    for rank in RANKS:
        line = [rank]
        for algorithm in ALGORITHMS:
            seeds = sorted({seed for _, seed in results})
            whole = [seed for seed in seeds if all((f"{algorithm}-{each}", seed) in results for each in RANKS)]
            scores, full = (
                np.array([results[f"{algorithm}-{each}", seed] for seed in whole]) for each in (rank, FULL)
            )
            line.append(_shown(scores, ".2f"))
            line.append("–" if rank == FULL else _shown(scores - full, "+.2f"))
        lines.append(line)
    return markdown_table(lines)


def _shown(values: np.ndarray, form: str) -> str:
    return plus_minus(float(values.mean()), standard_error(values), form) if len(values) else "–"


def rankings_table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: how often Q ranks the chosen answer of a pair of hh-rlhf above the rejected one, by rank of its head; mean over seeds ± SE
    over pairs, differences paired by pair.

    Args:
        rows (`list[dict]`): of a rank and a seed each, with `wins` and `untrained_wins` of every pair.
    """
    wins = {
        rank: {
            part: np.mean([row[part] for row in rows if row["rank"] == rank], axis=0)
            for part in ("untrained_wins", "wins")
        }
        for rank in dict.fromkeys(row["rank"] for row in rows)
    }
    lines = [["rank (width 576)", "before training", "after", "after, minus full"]]
    for rank, found in wins.items():
        change = "–" if rank == FULL else _shown(found["wins"] - wins[FULL]["wins"], "+.1%")
        lines.append([rank, _shown(found["untrained_wins"], ".1%"), _shown(found["wins"], ".1%"), change])
    return markdown_table(lines)


def memory_table(ranks: Sequence[int] = (16, 64, 256)) -> str:
    """Markdown: memory in GB that training the Q heads takes beside the model, with gradients and Adam's moments in float32."""
    lines = [["model", "words", "width", "heads", FULL, *(f"rank {rank}" for rank in ranks)]]
    for model, (words, width) in MODELS.items():
        for algorithm, heads in HEADS.items():
            numbers = [words * width, *(rank * (words + width) for rank in ranks)]
            memory = [f"{heads * number * BYTES / 1e9:.2f}" for number in numbers]
            lines.append([model, f"{words:,}", str(width), algorithm, *memory])
    return markdown_table(lines)


def main(arguments: StudyArguments) -> None:
    study, cells = make_study(arguments), all_cells(arguments.seeds)
    if arguments.report is None:
        run_cells(study, cells)
        return
    rows = [result.to_dict() for result in saved_results(study, cells)]
    write_rows(arguments.report, rows)
    print(f"{scores_table(rows)}\n\n{memory_table()}")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    main(TrlParser(StudyArguments).parse_args_and_config()[0])
