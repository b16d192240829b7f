"""How long a user waits for `import boost_trl`, `--help` and the message about a wrong option."""

import resource
import subprocess
import sys
import time

import numpy as np
from side_by_side import Row


COMMANDS = {
    "`import boost_trl`": (["-c", "import boost_trl"], 0.1),
    "`boost-trl --help`": (["-m", "boost_trl.cli", "--help"], 0.2),
    "a wrong option": (["-m", "boost_trl.cli", "offline-rl", "--learning_rat", "1e-4"], 1.0),
}


def seconds(command: list[str]) -> tuple[float, float]:
    """CPU and wall-clock seconds of a fresh Python."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *command], capture_output=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def measure(rounds: int = 7) -> list[Row]:
    rows = []
    for name, (command, at_most) in COMMANDS.items():
        cpu, wall = np.array([seconds(command) for _ in range(rounds)]).T
        value, low, high = np.median(cpu), cpu.min(), cpu.max()
        rows.append(Row(name, "", value, at_most, "s", low, high, float(np.median(wall)), {"rounds": rounds}))
    return rows
