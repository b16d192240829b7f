"""A comparison as cells, method × setting × seed: each is run once and saved, so that one that was killed goes on."""

import json
import os
import subprocess
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm

from boost_trl.analysis.run_files import RESULT_NAME
from boost_trl.comparison.results import Result
from boost_trl.files import write_whole


@dataclass(frozen=True)
class Method:
    """One row of a comparison.

    Args:
        name (`str`): in files.
        label (`str`): in tables.
        options (`dict`, *optional*): fields of the trainer's configuration that it sets.
        needs (`str`, *optional*): a method that must have run before, in the same setting with the same seed.
        about (`str`, *optional*): what it does, for readers who know nothing of the comparison.
    """

    name: str
    label: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: str | None = None
    about: str = ""


@dataclass(frozen=True)
class Cell:
    """One training run and its evaluation.

    Args:
        method (`str`): name of the method.
        seed (`int`): of data and training.
        setting (`str`, *optional*): name of what else differs, in a comparison of several settings.
    """

    method: str
    seed: int
    setting: str = ""


class Comparison(ABC):
    """A kind of experiment: which methods there are, what a cell's result depends on, how a cell is run.

    Args:
        folder (`str` or `Path`): gets `runs/<name of the cell>/`, with `result.json` and what training saves.
        make_experiment (`Callable`): model and data of a cell, the same for all methods of its setting and seed.
    """

    methods: Mapping[str, Method]

    def __init__(self, folder: str | Path, make_experiment: Callable[[Cell], Any]):
        self.folder = Path(folder)
        self._make_experiment = make_experiment
        self._experiments: dict[tuple[str, int], Any] = {}

    def experiment(self, cell: Cell) -> Any:
        """Model and data of a cell, made when they are needed; the last ones are kept."""
        key = cell.setting, cell.seed
        if key not in self._experiments:
            self._experiments.clear()
            self._experiments[key] = self._make_experiment(cell)
        return self._experiments[key]

    @abstractmethod
    def name(self, cell: Cell) -> str:
        """Name of the cell's folder."""

    @abstractmethod
    def settings(self, cell: Cell) -> Any:
        """The settings that the result depends on beside method and seed, as JSON: one saved with others is not
        used."""

    @abstractmethod
    def run(self, cell: Cell, advance: Callable[[], object]) -> Result:
        """Train and evaluate; `advance()` after every step but the last."""

    def steps(self, cell: Cell) -> int:
        """Number of steps of the progress bar that `run` takes."""
        return 1

    def run_folder(self, cell: Cell) -> Path:
        return self.folder / "runs" / self.name(cell)

    @classmethod
    def choose(cls, names: Sequence[str] | None) -> list[str]:
        """`names` of methods; all for `None` or `"all"`.

        Raises:
            ValueError: for an unknown method.
        """
        if names is None or "all" in names:
            return list(cls.methods)
        if unknown := sorted(set(names) - set(cls.methods)):
            raise ValueError(f"unknown methods {unknown}; known: all, {', '.join(cls.methods)}")
        return list(names)


def run_cells(comparison: Comparison, cells: Sequence[Cell], *, progress: bool = True) -> list[Result]:
    """The results of `cells`, in order; what has a result with the same settings is read, everything else run and saved.

    Args:
        comparison (`Comparison`): what runs them.
        cells (`Sequence[Cell]`): cells of one setting and seed should stand together, since their data are made once.
        progress (`bool`, *optional*, defaults to `True`): show a bar, on the main process.
    """
    results = []
    total, done = sum(map(comparison.steps, cells)), 0
    is_silent = not (progress and PartialState().is_main_process)
    with tqdm(total=total, desc="comparison", unit="step", disable=is_silent) as bar:
        for cell in cells:
            place = f"{cell.setting}, seed {cell.seed}" if cell.setting else f"seed {cell.seed}"
            bar.set_postfix_str(f"{comparison.methods[cell.method].label}, {place}")
            run = partial(comparison.run, cell, bar.update)
            results.append(saved_or_run(comparison.run_folder(cell) / RESULT_NAME, comparison.settings(cell), run))
            done += comparison.steps(cell)
            bar.update(done - bar.n)
    return results


def saved_or_run(path: Path, settings: Any, run: Callable[[], Result]) -> Result:
    """The result in the file `path` if it was made with `settings`, else that of `run`, which is saved with them at once.

    With several processes of one training all call it, and the main one reads, decides and writes.
    """
    state = PartialState()
    saved = read_saved(path, settings) if state.is_main_process else None
    if state.num_processes > 1:
        (saved,) = broadcast_object_list([saved])
    if saved is None:
        saved = run()
        if state.is_main_process:
            write_whole(path, json.dumps({"settings": settings, **saved.to_dict()}))
    return saved


def read_saved(path: Path, settings: Any) -> Result | None:
    """The result in the file `path`, if there is one that was made with `settings`; a file that was cut off, such as by a copy
    between machines, counts as none."""
    if not path.is_file():
        return None
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return Result.from_dict(saved) if saved.pop("settings", None) == settings else None
    except (ValueError, TypeError, AttributeError) as error:
        warnings.warn(f"{path} is not whole ({error}): its cell counts as not done", stacklevel=2)
        return None


def saved_results(comparison: Comparison, cells: Sequence[Cell]) -> list[Result]:
    """The results of `cells` so far; nothing is run."""
    paths = [(cell, comparison.run_folder(cell) / RESULT_NAME) for cell in cells]
    # The settings of a method that needs another's result are not known before that is there.
    found = (read_saved(path, comparison.settings(cell)) for cell, path in paths if path.is_file())
    return [result for result in found if result is not None]


def write_rows(path: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write a study's results to one JSON file, an object per row; nothing for the path `"-"`, with which a study only prints."""
    if path != "-":
        write_whole(path, json.dumps(rows, indent=1) + "\n")


def parse_shard(text: str) -> tuple[int, int]:
    """The numbers (i, n) of `"i/n"`, the i-th of n shards.

    Raises:
        ValueError: if it is none with 1 ≤ i ≤ n.
    """
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ValueError(f"`shard` must be such as '1/4', the first of four, got {text!r}")
    return int(index), int(count)


def shard(
    comparison: Comparison, cells: Sequence[Cell], part: str, group: Callable[[Cell], Hashable] = lambda cell: cell
) -> list[Cell]:
    """The cells of one shard, without those that need the result of another.

    Args:
        comparison (`Comparison`): which methods need another.
        cells (`Sequence[Cell]`): all.
        part (`str`): `"i/n"`: the i-th of n shards.
        group (`Callable`, *optional*): cells for which it is equal stay together, for example those of one world.

    """
    index, count = parse_shard(part)
    free = [cell for cell in cells if comparison.methods[cell.method].needs is None]
    groups = list(dict.fromkeys(map(group, free)))
    mine = set(groups[index - 1 :: count])
    return [cell for cell in free if group(cell) in mine]


def run_shards(argv: Sequence[str], count: int, folder: Path, total: int) -> None:
    """The same command in `count` processes, each with `--shard i/count`; all results end on disk.

    Args:
        argv (`Sequence[str]`): what follows the interpreter: script or `-m module`, and its options.
        count (`int`): number of processes.
        folder (`Path`): the comparison's.
        total (`int`): cells, for the progress bar.

    Raises:
        SystemExit: with the status of the first process that failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, *argv, "--shard", f"{index}/{count}"] for index in range(1, count + 1)]
    start = time.time()
    children = [subprocess.Popen(command, env=environment) for command in commands]
    with tqdm(total=total, desc="runs", unit="run") as bar:
        while any(child.poll() is None for child in children):
            time.sleep(1)
            done = [path for path in folder.glob(f"runs/*/{RESULT_NAME}") if path.stat().st_mtime > start]
            bar.update(len(done) - bar.n)
    if failed := [child.returncode for child in children if child.returncode]:
        sys.exit(failed[0])
