"""`boost-trl analyze`: say what the weights of finished runs mean, as one page per run."""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from boost_trl.environments.options import EnvironmentOptions
from boost_trl.scripts.command_parser import CommandParser


@dataclass
class AnalyzeArguments(EnvironmentOptions):
    """Options of `boost-trl analyze RUN [RUN…]`.

    Args:
        environment (`str`, *optional*): whose rules mark invalid actions; the run's own where it says.
        environment_kwargs (`dict`, *optional*): options of the environment, as JSON.
        horizon (`float`, *optional*): H_max of the bound, the longest game in steps; the environment's by default.
        delta (`float`): the bound may fail with this probability.
        kl (`float`, *optional*): KL(Q‖P₀) of the bound in nats; by default from the saved weights.
        sigma (`float`): standard deviation of the Gaussian that this KL is of.
        task_shift (`float`, *optional*): Δ_task of the bound, in steps.
        heldout_dataset_name (`str`, *optional*): held-out rows or games by which to estimate it instead.
    """

    environment: str | None = field(
        default=None,
        metadata={
            "help": "Environment whose rules mark invalid actions of the rows, or file.py:ClassName; a comparison's runs know theirs."
        },
    )
    environment_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Options of the environment as JSON, such as \'{"world": "full"}\'.'}
    )
    horizon: float | None = field(
        default=None,
        metadata={"help": "Longest game in steps, for the bound; by default the environment's or the rows' longest."},
    )
    delta: float = field(default=0.05, metadata={"help": "The bound may fail with this probability."})
    kl: float | None = field(
        default=None,
        metadata={"help": "KL of the trained policy from the pretrained one, in nats; by default from saved weights."},
    )
    sigma: float = field(
        default=0.02, metadata={"help": "Standard deviation of the Gaussian around the weights that this KL is of."}
    )
    task_shift: float | None = field(
        default=None,
        metadata={"help": "Largest difference in steps between training tasks and new ones, for the bound."},
    )
    heldout_dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Held-out rows or saved games (.jsonl, .parquet) by which to estimate the task shift instead."
        },
    )

    _former_names = {"heldout_path": "heldout_dataset_name"}

    def __post_init__(self):
        self.environment_kwargs = self.environment_options
        if self.environment_kwargs and self.environment is None:
            raise ValueError("`environment_kwargs` is for an `environment`: name it too")
        if self.task_shift is not None and self.heldout_dataset_name is not None:
            raise ValueError("`task_shift` and `heldout_dataset_name` say the same: give one of them")
        if not 0 < self.delta < 1:
            raise ValueError(f"`delta` must be between 0 and 1, got {self.delta}")
        for name in ("horizon", "sigma", "kl", "task_shift"):
            value = getattr(self, name)
            if value is not None and not (value > 0 or value == 0 and name in ("kl", "task_shift")):
                raise ValueError(f"`{name}` must not be negative, and above 0 for `horizon` and `sigma`, got {value}")


def make_parser(prog: str | None = None) -> CommandParser:
    """The command's parser."""
    parser = CommandParser((AnalyzeArguments,), prog, arguments="RUN [RUN ...]")
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="Folder of a finished run of either trainer: its output_dir, or a comparison's outputs/…/runs/… (several: runs "
        "with synthetic rows are compared with those on the same rows without).",
    )
    return parser


def prepare(args: AnalyzeArguments, more: argparse.Namespace) -> Callable[[], None]:
    """Check and read everything; what is returned analyses, writes and prints."""
    from boost_trl.analysis.run_files import open_run
    from boost_trl.environments.base import check_env

    if args.environment is not None:
        check_env(args.environment, **args.environment_options)
    runs, skipped = [], []
    for folder in more.runs:
        try:
            run = open_run(folder)
        except ValueError as error:
            skipped.append(str(error))
            continue
        if not os.access(run.folder, os.W_OK):
            skipped.append(f"{run.folder} cannot be written to: copy the run to where its page can be")
            continue
        runs.append(run)
    if not runs:
        raise ValueError(skipped[0])
    return partial(_analyze, args, runs, skipped, _heldout_returns(args.heldout_dataset_name))


def _heldout_returns(path: str | None) -> list[float] | None:
    if path is None:
        return None
    from boost_trl.data.row_files import load_rows
    from boost_trl.data.trajectories import to_trajectory

    rows = load_rows(path)
    return [sum(to_trajectory(row, index, path)["rewards"]) for index, row in enumerate(rows)]


def _analyze(args: AnalyzeArguments, runs, skipped: list[str], heldout_returns: list[float] | None) -> None:
    from boost_trl.analysis.report import Options, analyze

    for reason in skipped:
        print(f"left out: {reason}")
    for run in runs:
        try:
            env = _environment(args, run)
        except (ValueError, OSError) as error:
            env = None
            print(f"{run.name}: invalid actions are not marked: {error}")
        horizon = args.horizon if args.horizon is not None or env is None else env.max_steps
        bound = {name: getattr(args, name) for name in ("delta", "kl", "sigma", "task_shift")}
        options = Options(env, {**bound, "horizon": horizon, "heldout_returns": heldout_returns}, progress=True)
        written = analyze(run, runs, options)
        print(f"\n{run.name}: {written.page}")
        for finding in written.findings:
            print(f"  - {finding.replace('*', '').replace(chr(92), '')}")
        for reason in written.missing:
            print(f"  left out: {reason}")


def _environment(args: AnalyzeArguments, run):
    """The environment that the options name, or else the one that the run says it played.

    Raises:
        OSError, ValueError: if that one is not here, or not with these options, or is a file of code.
    """
    from boost_trl.environments.base import make_env
    from boost_trl.environments.environment_file import names_file

    if args.environment is not None:
        return make_env(args.environment, **args.environment_options)
    name = run.result.get("environment")
    if name is not None and names_file(name):
        raise ValueError(f"{name} is a file of code, which is run only if `--environment` names it")
    return None if name is None else make_env(name, **(run.result.get("environment_kwargs") or {}))


def main(args: AnalyzeArguments, more: argparse.Namespace) -> None:
    """Analyse, write, print."""
    prepare(args, more)()


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
