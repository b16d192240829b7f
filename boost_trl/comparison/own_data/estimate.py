"""Time and memory that a comparison will take, from a few updates that are timed."""

import time
from dataclasses import dataclass

import psutil
import torch


# Reading a loss takes a forward pass; an update two to three times as long.
FORWARD_SHARE = 0.4


@dataclass(frozen=True)
class Estimate:
    """Expected costs.

    Args:
        seconds (`dict[str, float]`): of one run by method: preparation, scoring, training and judging.
        memory (`float`): bytes, of one process: the accelerator's if there is one.
    """

    seconds: dict[str, float]
    memory: float


class Stopwatch:
    """Times of updates and the memory that they take; it is called after each."""

    def __init__(self):
        self._start = time.perf_counter()
        self._times: list[float] = []
        self.memory = 0.0

    def __call__(self) -> None:
        self._times.append(time.perf_counter())
        self.memory = max(self.memory, used_memory())

    @property
    def seconds_of_an_update(self) -> float:
        """Mean over all but the first, which warms up."""
        return (self._times[-1] - self._times[0]) / (len(self._times) - 1)

    @property
    def seconds_beside(self) -> float:
        """From the start until now, without updates."""
        return time.perf_counter() - self._start - len(self._times) * self.seconds_of_an_update


def used_memory() -> float:
    """Bytes of this process: the most that the accelerator had to hold if there is one, else what the process holds now."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    return psutil.Process().memory_info().rss


def duration(seconds: float) -> str:
    """In words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
