"""A study: many cells (method × setting), each saved as soon as it is done, so that a killed run continues."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm

from boost_trl.comparison.methods import METHODS
from boost_trl.comparison.report import standard_error
from boost_trl.comparison.run import MethodResult, run_method
from boost_trl.comparison.setting import Setting
from boost_trl.files import write_whole
from boost_trl.tables import markdown_table, plus_minus
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


@dataclass(frozen=True)
class Cell:
    """One training run and its games.

    Args:
        method (`str`): a name of `METHODS`.
        pool (`str`): the kind of planted noise, `"clean"` for none.
        algorithm (`str`): `"mc"` or `"ilql"`.
        backbone (`str`): `"frozen"` or `"trained"`.
        world (`int`), seed (`int`): which world, and which data and training within it.
    """

    method: str
    pool: str
    algorithm: str
    backbone: str
    world: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.backbone}-{self.algorithm}-{self.pool}-w{self.world}-s{self.seed}-{self.method}"


def saved_or_run(path: Path, key: dict[str, Any], run: Callable[[], MethodResult]) -> dict[str, Any]:
    """The result in the file `path` if it was made with `key`, else that of `run`, which is saved with `key` at once.

    With several processes all call it, and the main one reads, decides and writes.
    """
    state = PartialState()
    saved = None
    if state.is_main_process and path.is_file():
        found = json.loads(path.read_text())
        saved = found if all(found.get(name) == value for name, value in key.items()) else None
    if state.num_processes > 1:
        (saved,) = broadcast_object_list([saved])
    if saved is None:
        saved = {**key, **run().to_dict()}
        if state.is_main_process:
            write_whole(path, json.dumps(saved))
    return saved


def run_cells(
    cells: Sequence[Cell],
    folder: Path,
    make_setting: Callable[[Cell], Setting],
    training_args: Callable[[Cell], BilevelOfflineRLConfig],
    **games: Any,
) -> None:
    """Run the cells that have no result yet, in order; cells of one setting should stand together, it is built once.

    Args:
        cells (`Sequence[Cell]`): what to run.
        folder (`Path`): `<cell name>.json` holds a cell's result.
        make_setting (`Callable`): world and data of a cell; called again only when world, seed or pool change.
        training_args (`Callable`): training settings of a cell.
        games (*optional*): `games`, `validation_games`, `betas` of `play_method`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [cell for cell in cells if not (folder / f"{cell.name}.json").is_file()]
    setting, built_for = None, None
    for cell in tqdm(missing, desc="cells", unit="cell"):
        method = METHODS[cell.method]
        key = (cell.world, cell.seed, cell.pool)
        if key != built_for:
            setting, built_for = make_setting(cell), key
        run = partial(run_method, method, setting, training_args(cell), folder / "runs" / cell.name, **games)
        saved_or_run(folder / f"{cell.name}.json", cell.__dict__, lambda run=run: run()[0])


def load_cells(folder: Path) -> list[dict[str, Any]]:
    """The results so far."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")]


def _by_run(results: Sequence[dict[str, Any]], method: str) -> dict[tuple[int, int], dict[str, Any]]:
    return {(row["world"], row["seed"]): row for row in results if row["method"] == method}


def mean_over_worlds(values: dict[tuple[int, int], float]) -> tuple[float, float]:
    """Mean ± SE over worlds; the seeds of one world are averaged first, since they share its difficulty.

    Args:
        values (`dict`): (world, seed) -> value.
    """
    worlds = sorted({world for world, _ in values})
    means = [float(np.mean([value for (w, _), value in values.items() if w == world])) for world in worlds]
    return float(np.mean(means)), standard_error(means)


def scores_table(results: Sequence[dict[str, Any]], pools: Sequence[str]) -> str:
    """Markdown: score of every method (rows) on every pool (columns), mean ± SE over worlds; AUC in brackets."""
    lines = [["method", *pools]]
    for name, method in METHODS.items():
        cells = []
        for pool in pools:
            runs = _by_run([row for row in results if row["pool"] == pool], name)
            if not runs:
                cells.append("")
                continue
            mean, error = mean_over_worlds({key: row["score_mean"] for key, row in runs.items()})
            aucs = [row["weights_auc"] for row in runs.values() if row["weights_auc"] is not None]
            cells.append(plus_minus(mean, error) + (f" ({np.mean(aucs):.2f})" if aucs else ""))
        if any(cells):
            lines.append([method.label, *cells])
    return markdown_table(lines)


def differences_table(results: Sequence[dict[str, Any]], method: str, controls: Sequence[str], pools) -> str:
    """Markdown: paired differences of `method` to every control (rows) on every pool, mean ± SE over worlds."""
    lines = [[f"{METHODS[method].label} minus", *pools]]
    for control in controls:
        cells = []
        for pool in pools:
            here = [row for row in results if row["pool"] == pool]
            ours, theirs = _by_run(here, method), _by_run(here, control)
            both = {key: ours[key]["score_mean"] - theirs[key]["score_mean"] for key in ours.keys() & theirs.keys()}
            cells.append(plus_minus(*mean_over_worlds(both), "+.2f") if both else "")
        if any(cells):
            lines.append([METHODS[control].label, *cells])
    return markdown_table(lines)
