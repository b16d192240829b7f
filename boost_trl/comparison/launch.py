"""Shards of a comparison as jobs of a cluster, by [submitit](https://github.com/facebookincubator/submitit)."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


LAUNCHERS = ("slurm", "local")
# A day; everything else is the cluster's default.
DEFAULTS = {"name": "boost_trl", "timeout_min": 24 * 60}


def make_executor(launcher: str, folder: Path, options: dict[str, Any]):
    """The executor that submits jobs.

    Args:
        launcher (`str`): `"slurm"`, or `"local"`: processes of this machine.
        folder (`Path`): for logs; on a cluster one that all machines see.
        options (`dict`): parameters of `submitit.AutoExecutor`, such as `slurm_partition` and `gpus_per_node`.

    Raises:
        ValueError: without submitit, for an unknown launcher or parameter, and for `"slurm"` where there is none.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f"`launcher` must be one of {', '.join(LAUNCHERS)}, got {launcher!r}")
    try:
        import submitit
    except ImportError:
        raise ValueError("`launcher` needs submitit: pip install 'boost_trl[launcher]'") from None
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=launcher)
        executor.update_parameters(**{**DEFAULTS, **options})
    except (RuntimeError, NameError, TypeError, AssertionError) as error:
        raise ValueError(f"`launcher` {launcher!r} cannot be used so: {error}") from None
    return executor


def submit_shards(executor, argv: Sequence[str], count: int) -> list:
    """Submit the same command `count` times, as one job array, each with `--shard i/count`; returns the jobs.

    Args:
        executor (`submitit.AutoExecutor`): of `make_executor`.
        argv (`Sequence[str]`): what follows the interpreter.
        count (`int`): jobs.
    """
    from submitit.helpers import CommandFunction

    commands = [[sys.executable, *argv, "--shard", f"{index}/{count}"] for index in range(1, count + 1)]
    # Jobs that share one machine would otherwise each take all of its cores.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"} if executor.cluster == "local" else None
    with executor.batch():
        return [executor.submit(CommandFunction(command, env=environment)) for command in commands]
