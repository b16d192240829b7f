"""The grid of [B] Table 1: method × algorithm × environment × size of the data × seed."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from boost_trl.comparison.cells import Cell
from boost_trl.comparison.offline_rl.arguments import PAPER_METHODS
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.offline_rl.study import Place, Study
from boost_trl.comparison.offline_rl.worlds import get_world


ALGORITHMS = ("mc", "ilql")
SIZES = ("low", "high")
RECIPE = "by_games"
CONTROLS = ("vanilla_validation", "two_stage", "uniform", "uniform_mix")
ORACLES = ("oracle", "oracle_mix")
DEFAULT_METHODS = (*PAPER_METHODS, *CONTROLS, RECIPE, *ORACLES)
# Of the worlds' tiny runs: the paper's grid has no planted noise, and its whole validation split.
CPU_PRESET = {"noise": "none", "validation_rows": None}
# Of a cell on one core of a 2026 server, with its part in making the data.
TINY_SECONDS = {"twenty_questions": 11.0, "car_dealer": 12.0, "webshop": 9.0}


class Setting(NamedTuple):
    """One row of the table.

    Args:
        environment (`str`): name of the environment.
        algorithm (`str`): `"mc"` or `"ilql"`.
        size (`str`): `"low"` or `"high"`: a share of the training rows, or all.
    """

    environment: str
    algorithm: str
    size: str

    @property
    def name(self) -> str:
        return "-".join(self)

    @classmethod
    def of(cls, cell_setting: str) -> "Setting":
        """The inverse of `name`."""
        return cls(*cell_setting.split("-"))


class Grid(Study):
    """Methods, algorithms, environments and sizes of the data, each with every other.

    Args:
        folder (`str` or `Path`): gets `runs/<environment>-<algorithm>-<size>-<seed>-<method>-<settings>/`.
        flags (`Sequence[str]`, *optional*): of comparison, training and model, the same for all cells.
    """

    def __init__(self, folder: str | Path, flags: Sequence[str] = ()):
        super().__init__(folder, self._place, self._flags)
        self.shared_flags = list(flags)

    def _place(self, cell: Cell) -> Place:
        return Place(Setting.of(cell.setting).environment, CPU_PRESET)

    def _flags(self, cell: Cell) -> list[str]:
        setting = Setting.of(cell.setting)
        flags = [*self.shared_flags, "--algorithm", setting.algorithm]
        if setting.size == "low":
            flags += ["--train_fraction", str(get_world(setting.environment).low_data_fraction)]
        return flags

    def experiment(self, cell: Cell) -> OfflineRLExperiment:
        """Model and data of a cell, which are the same for all algorithms."""
        setting = Setting.of(cell.setting)._replace(algorithm=ALGORITHMS[0])
        return super().experiment(replace(cell, setting=setting.name))

    def known_seconds(self, cell: Cell) -> float | None:
        """Roughly what a cell takes on one core, data included; `None` with a model that is named."""
        if self.options(cell).model_args.model_name_or_path is not None:
            return None
        return TINY_SECONDS[Setting.of(cell.setting).environment]

    def cells(
        self,
        environments: Sequence[str],
        algorithms: Sequence[str],
        sizes: Sequence[str],
        seeds: Sequence[int],
        methods: Sequence[str],
    ) -> list[Cell]:
        """Cells in an order in which data are made once; oracles only where the bad rows are known."""
        cells = [
            Cell(method, seed, Setting(environment, algorithm, size).name)
            for environment in environments
            for size in sizes
            for seed in seeds
            for algorithm in algorithms
            for method in methods
        ]
        return [
            cell
            for cell in cells
            if not self.methods[cell.method].needs_planted_noise or self.options(cell).arguments.noise != "none"
        ]


def data_of(cell: Cell) -> tuple[str, str, int]:
    """The key of a cell's data; cells of which it is equal are best run together."""
    setting = Setting.of(cell.setting)
    return setting.environment, setting.size, cell.seed
