"""Studies: offline RL methods in many worlds and settings, and their tables, one column per pool."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from boost_trl.comparison.cells import Cell
from boost_trl.comparison.offline_rl.comparison import OfflineRLComparison, Options
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.offline_rl.worlds import World, get_world
from boost_trl.comparison.results import mean_over_groups
from boost_trl.tables import markdown_table, plus_minus


@dataclass(frozen=True)
class Place:
    """World and options in which a cell trains and plays.

    Args:
        environment (`str`): name of the world's environment.
        options (`dict`, *optional*): options of comparison, training and model that differ from the world's; they count only
            when no model is named.
        number (`int`, *optional*): the world that has the facts; by default the cell's seed.
        changes (`dict`, *optional*): fields of the [`World`] that are others than its own.
    """

    environment: str
    options: dict[str, Any] = field(default_factory=dict)
    number: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def world(self) -> World:
        return replace(get_world(self.environment), **self.changes)


class Study(OfflineRLComparison):
    """A comparison of offline RL methods in several worlds and settings.

    Args:
        folder (`str` or `Path`): gets cells and caches.
        place (`Callable`): the [`Place`] of a cell; the same for all methods of a setting and seed.
        flags (`Callable`, *optional*): flags of a cell, over the place's options; none by default.
    """

    def __init__(
        self,
        folder: str | Path,
        place: Callable[[Cell], Place],
        flags: Callable[[Cell], Sequence[str]] = lambda cell: (),
    ):
        super().__init__(folder, self._options, self._build)
        self.place, self.flags = place, flags
        self._parsed: dict[tuple[str, int], Options] = {}

    def _options(self, cell: Cell) -> Options:
        key = cell.setting, cell.seed
        if key not in self._parsed:
            place = self.place(cell)
            flags = ["--output_dir", str(self.folder), "--seed", str(cell.seed), *self.flags(cell)]
            self._parsed[key] = place.world.parse(flags, **place.options)
        return self._parsed[key]

    def _build(self, cell: Cell) -> OfflineRLExperiment:
        place = self.place(cell)
        return place.world.make_experiment(*self._options(cell), cell.seed, number=place.number)


def mean_over_worlds(values: Mapping[tuple[int, int], float]) -> tuple[float, float]:
    """Mean ± SE over worlds of values by (world, seed); the seeds of one world are averaged first, since they share its
    difficulty."""
    return mean_over_groups(values, lambda key: key[0])


def scores_table(rows: Sequence[dict[str, Any]], pools: Sequence[str]) -> str:
    """Markdown: score of every method (rows) on every pool (columns), mean ± SE over worlds; AUC in brackets.

    Args:
        rows (`Sequence[dict]`): results with `pool`, `world` and `seed`.
        pools (`Sequence[str]`): columns.
    """
    lines = [["method", *pools]]
    for name, method in METHODS.items():
        cells = []
        for pool in pools:
            runs = _by_run(rows, pool, name)
            if not runs:
                cells.append("")
                continue
            mean, error = mean_over_worlds({key: row["score_mean"] for key, row in runs.items()})
            aucs = [row["weights_auc"] for row in runs.values() if row["weights_auc"] is not None]
            cells.append(plus_minus(mean, error) + (f" ({np.mean(aucs):.2f})" if aucs else ""))
        if any(cells):
            lines.append([method.label, *cells])
    return markdown_table(lines)


def differences_table(
    rows: Sequence[dict[str, Any]], method: str, controls: Sequence[str], pools: Sequence[str]
) -> str:
    """Markdown: paired differences of `method` to every control (rows) on every pool, mean ± SE over worlds."""
    lines = [[f"{METHODS[method].label} minus", *pools]]
    for control in controls:
        cells = []
        for pool in pools:
            ours, theirs = _by_run(rows, pool, method), _by_run(rows, pool, control)
            both = {key: ours[key]["score_mean"] - theirs[key]["score_mean"] for key in ours.keys() & theirs.keys()}
            cells.append(plus_minus(*mean_over_worlds(both), "+.2f") if both else "")
        if any(cells):
            lines.append([METHODS[control].label, *cells])
    return markdown_table(lines)


def by_pool(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int], dict[str, dict[str, Any]]]:
    """Results by (`setting`, `seed`), sorted, and then by method."""
    found: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["setting"], row["seed"]), {})[row["method"]] = row
    return dict(sorted(found.items()))


def _by_run(rows: Sequence[dict[str, Any]], pool: str, method: str) -> dict[tuple[int, int], dict[str, Any]]:
    return {(row["world"], row["seed"]): row for row in rows if (row["pool"], row["method"]) == (pool, method)}
