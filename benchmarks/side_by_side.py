"""Measuring: ways of doing the same in turns, in one process, and the peak of memory of each in a process of its own."""

import dataclasses
import gc
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm


@dataclasses.dataclass
class Row:
    """A line of the table.

    Args:
        measure (`str`): what was measured.
        against (`str`): what a ratio is to; `""` for a figure by itself.
        value (`float`): a ratio, or a figure in `unit`.
        at_most (`float`, *optional*): the aim.
        unit (`str`, *optional*, defaults to `"×"`): of `value` and `at_most`.
        lowest, highest (`float`, *optional*): of the rounds, of which `value` is the median.
        wall (`float`, *optional*): the same ratio in wall-clock time.
        details (`dict`, *optional*): sizes and seconds behind it.
    """

    measure: str
    against: str
    value: float
    at_most: float | None = None
    unit: str = "×"
    lowest: float | None = None
    highest: float | None = None
    wall: float | None = None
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Seconds:
    """CPU and wall-clock seconds of this process."""

    cpu: float
    wall: float

    @classmethod
    def now(cls) -> "Seconds":
        return cls(time.process_time(), time.perf_counter())

    def __sub__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.cpu - other.cpu, self.wall - other.wall)

    def __truediv__(self, number: float) -> "Seconds":
        return Seconds(self.cpu / number, self.wall / number)


class Times:
    """Seconds of several ways in several rounds.

    Args:
        rounds (`dict[str, list[Seconds]]`): by way.
    """

    def __init__(self, rounds: dict[str, list[Seconds]]):
        self.rounds = rounds

    def cpu(self, way: str) -> float:
        """Median CPU seconds."""
        return float(np.median([seconds.cpu for seconds in self.rounds[way]]))

    def row(self, measure: str, way: str, against: str, at_most: float | None = None, *, named: str, **details) -> Row:
        """The ratio of two ways, of which each round gives one; `named` says what `against` is."""
        pairs = [*zip(self.rounds[way], self.rounds[against])]
        ratios = [ours.cpu / theirs.cpu for ours, theirs in pairs]
        wall = float(np.median([ours.wall / theirs.wall for ours, theirs in pairs]))
        details = {**details, "cpu_seconds": self.cpu(way), "cpu_seconds_against": self.cpu(against)}
        value = float(np.median(ratios))
        return Row(measure, named, value, at_most, lowest=min(ratios), highest=max(ratios), wall=wall, details=details)


def in_turns(ways: dict[str, Callable[[], Seconds | None]], rounds: int, what: str, warm_up: bool = True) -> Times:
    """Do all ways, in an order that moves on by one from round to round.

    Args:
        ways (`dict[str, Callable]`): by name; one that returns its own [`Seconds`] is believed, others are timed.
        rounds (`int`): that count.
        what (`str`): is being measured, for the bar.
        warm_up (`bool`, *optional*, defaults to `True`): begin with a round that does not count.
    """
    found: dict[str, list[Seconds]] = {name: [] for name in ways}
    names = [*ways]
    with tqdm(total=(rounds + warm_up) * len(names), desc=what, leave=False) as bar:
        for number in range(-int(warm_up), rounds):
            for name in np.roll(names, -number):
                gc.collect()
                start = Seconds.now()
                told = ways[name]()
                spent = told if isinstance(told, Seconds) else Seconds.now() - start
                if number >= 0:
                    found[name].append(spent)
                bar.update()
    return Times(found)


def in_new_process(function: Callable, *args) -> Any:
    """What a function of a module returns in a fresh Python."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def resident_megabytes() -> float:
    """Memory of this process that is in use."""
    return _status("VmRSS")


def peak_megabytes(make: Callable[..., Callable[[], object]], *args) -> float:
    """The most memory that a function needs beyond what there is before it, in a fresh process: `make(*args)` prepares and
    returns the function."""
    return with_peak(make, *args)[1]


def with_peak(make: Callable[..., Callable[[], Any]], *args) -> tuple[Any, float]:
    """The function's result, and its [`peak_megabytes`]."""
    return in_new_process(_with_peak, make, args)


def _with_peak(make: Callable[..., Callable[[], Any]], args: tuple) -> tuple[Any, float]:
    run = make(*args)
    gc.collect()
    forget_peak()
    before = resident_megabytes()
    return run(), _status("VmHWM") - before


def forget_peak() -> None:
    """Let the peak be what is in use now; otherwise it is mostly that of imports and preparation."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
