"""`boost-trl reproduce`: the papers' tables, cell by cell, with the controls and our methods beside the papers'."""

import json
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tqdm.auto import tqdm

from boost_trl.scripts.command_parser import CommandParser
from boost_trl.scripts.reproduce_arguments import AXES, ReproduceArguments


# What else is an option: of training, games and model.
OTHER_OPTIONS = {
    "transformers/training_args.py": "TrainingArguments",
    "trl/trainer/model_config.py": "ModelConfig",
    "boost_trl/trainer/offline_rl/settings.py": "OfflineRLSettings",
    "boost_trl/comparison/offline_rl/arguments.py": "ComparisonArguments",
}


class ReproduceParser(CommandParser):
    """The command's parser. What is not its own is passed on to the cells, whose options depend on their environment."""

    def __init__(self, prog: str | None = None):
        super().__init__(
            (ReproduceArguments,),
            prog,
            description="Run the papers' tables cell by cell and write a report. A run that was stopped goes on.",
            epilog="Options of training and model are passed on (`boost-trl offline-rl --help` lists them). --config "
            "FILE.yaml reads options from a file, such as the papers' settings in examples/configs/; options on the command "
            "line win. Several GPUs: accelerate launch -m boost_trl.cli reproduce --config FILE.yaml",
        )

    def parse_args_and_config(
        self, args: Iterable[str] | None = None, *rest: Any, **options: Any
    ) -> tuple[ReproduceArguments, list[str], list[str]]:
        """The arguments, the flags of cells, and the command line as it was given."""
        given = list(sys.argv[1:] if args is None else args)
        words, passed = list(given), []
        if "--config" in words:
            place = words.index("--config")
            config = yaml.safe_load(Path(words[place + 1]).read_text(encoding="utf-8")) or {}
            del words[place : place + 2]
            os.environ.update({name: str(value) for name, value in config.pop("env", {}).items()})
            own = {entry.name for entry in fields(ReproduceArguments)}
            self.set_defaults_with_config(**{name: value for name, value in config.items() if name in own})
            passed = flags_of({name: value for name, value in config.items() if name not in own})
        arguments, others = self.parse_args_into_dataclasses(words, return_remaining_strings=True)
        return arguments, [*passed, *others], given


def flags_of(options: dict[str, Any]) -> list[str]:
    """Flags that say the same as the entries of a YAML file."""
    flags = []
    for name, value in options.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        flags += [f"--{name}", *map(str, values)]
    return flags


def make_parser(prog: str | None = None) -> ReproduceParser:
    """The command's parser."""
    return ReproduceParser(prog)


def check_early(arguments: list[str], prog: str) -> None:
    """Refuse at once what `make_parser` and `prepare` would refuse only after seconds of imports."""
    from boost_trl.scripts.early_checks import parse_own_options

    parse_own_options((ReproduceArguments,), OTHER_OPTIONS, arguments, prog)


# What a process that runs some of the cells has to know.
PASSED_ON = ("all", *AXES, "seeds", "methods", "sft", "output_dir")


class Reproduction(NamedTuple):
    """A paper's tables: their cells, and how they are run and reported.

    Args:
        comparison (`Comparison`): runs the cells.
        cells (`list[Cell]`): all.
        group (`Callable`): what the data of a cell depend on.
        seconds (`Callable`): of a cell on one core as far as it is known, else `None`.
        write_report (`Callable`): of the folder, the results and the command; returns text for the terminal.
    """

    comparison: Any
    cells: list[Any]
    group: Callable[[Any], Hashable]
    seconds: Callable[[Any], float | None]
    write_report: Callable[[Path, list[Any], str], str]


# What is said by an option of the command's own.
OWN_WORDS = {"seed": "seeds", "train_fraction": "data"}


def check_flags(flags: Sequence[str]) -> None:
    """Refuse options of a cell that the command itself sets.

    Raises:
        ValueError: naming the option to give instead.
    """
    for flag in flags:
        name = flag.removeprefix("--").split("=")[0].replace("-", "_")
        if flag.startswith("--") and name in OWN_WORDS:
            raise ValueError(f"`{name}` differs from cell to cell: give `--{OWN_WORDS[name]}` instead")


def offline_rl_reproduction(arguments: ReproduceArguments, flags: Sequence[str]) -> Reproduction:
    """[B] Table 1.

    Raises:
        ValueError: for a method, option or value that does not exist.
    """
    from boost_trl.comparison.offline_rl.grid import DEFAULT_METHODS, Grid, data_of
    from boost_trl.comparison.offline_rl.table_1 import write_report

    check_flags(flags)
    grid = Grid(arguments.folder, flags)
    methods = grid.choose(arguments.methods or DEFAULT_METHODS)
    axes = (arguments.environment or (), arguments.algorithm or (), arguments.data or ())
    cells = grid.cells(*axes, arguments.seeds, methods)
    left_out = set(arguments.methods or ()) - {"all", *(cell.method for cell in cells)}
    if left_out:
        raise ValueError(f"{', '.join(sorted(left_out))} needs rows that are known to be bad: give `--noise bot` too")
    return Reproduction(grid, cells, data_of, grid.known_seconds, write_report)


def sft_reproduction(arguments: ReproduceArguments, flags: Sequence[str]) -> Reproduction:
    """[S] Tables 1 to 4.

    Raises:
        ValueError: for options of training or model.
    """
    from boost_trl.comparison.sft.grid import DEFAULT_METHODS, SFTGrid, write_report

    if flags:
        raise ValueError(
            f"`--sft` trains tiny models with settings of their own: leave out {shlex.join(flags)}; for the paper's models "
            "run examples/sft_self_refine.py with --config examples/configs/sft_pythia_1b.yaml or sft_llama_3_8b.yaml"
        )
    grid = SFTGrid(arguments.folder)
    cells = grid.cells(arguments.seeds, grid.choose(arguments.methods or DEFAULT_METHODS))
    return Reproduction(grid, cells, lambda cell: (cell.setting, cell.seed), grid.known_seconds, write_report)


def prepare(arguments: ReproduceArguments, flags: list[str], given: list[str]) -> Callable[[], None]:
    """Check everything; what is returned runs the cells, or some of them, and reports."""
    from boost_trl.comparison.cells import parse_shard
    from boost_trl.comparison.launch import make_executor

    reproduction = (sft_reproduction if arguments.sft else offline_rl_reproduction)(arguments, flags)
    if not (arguments.sft or arguments.report):
        check_model_and_worlds(reproduction)
    if arguments.shard is not None:
        parse_shard(arguments.shard)
    executor = None
    if arguments.launcher is not None:
        executor = make_executor(arguments.launcher, arguments.folder / "jobs", arguments.job_options)
    own = {name: value for name, value in vars(arguments).items() if name in PASSED_ON}
    command = ["-m", "boost_trl.cli", "reproduce", *flags_of(own), *flags]

    def run_quietly() -> None:
        from accelerate import PartialState

        with quiet():
            run(arguments, reproduction, executor, command, given)
        PartialState().destroy_process_group()

    return run_quietly


def check_model_and_worlds(reproduction: Reproduction) -> None:
    """Check every cell's options and that what they name exists, before anything runs.

    Raises:
        OSError: for a model that cannot be found.
        ValueError: for a wrong value.
    """
    from boost_trl.scripts.early_checks import check_names

    every = {cell.setting: reproduction.comparison.options(cell) for cell in reproduction.cells}
    named = {
        (each.arguments.environment, each.model_args.model_name_or_path): each.arguments for each in every.values()
    }
    for (environment, model), arguments in named.items():
        check_names((model,), (), environment, arguments.environment_options)


@contextmanager
def quiet() -> Iterator[None]:
    """Leave the terminal to the progress bar of the cells."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logger = logging.getLogger("boost_trl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def plan(reproduction: Reproduction, done: Sequence[Any], workers: int) -> str:
    """The number of cells, and about how long they take on so many `workers`, as far as that is known."""
    wall = {(result.setting, result.seed, result.method): result for result in done}
    seconds = {cell: reproduction.seconds(cell) for cell in reproduction.cells}
    finished = {cell: wall[key] for cell in seconds if (key := (cell.setting, cell.seed, cell.method)) in wall}
    left = [cell for cell in seconds if cell not in finished]
    text = f"{len(seconds)} cells, {len(finished)} of them done"
    taken = sum(result.metrics.get("wall_seconds", result.seconds) for result in finished.values())
    known = {cell: value for cell, value in seconds.items() if value is not None}
    if len(known) == len(seconds):
        pace = taken / sum(known[cell] for cell in finished) if finished else 1.0
        ahead = pace * sum(known[cell] for cell in left)
    elif finished:
        ahead = taken / len(finished) * len(left)
    else:
        return f"{text}; how long they take shows after the first"
    minutes = round(ahead / 60 / workers)
    words = "less than a minute" if minutes < 1 else f"about {minutes} minute{'s' if minutes > 1 else ''}"
    return f"{text}; {words} to go on {workers} core{'s' if workers > 1 else ''}" if left else text


def jobs_finish(executor: Any, command: Sequence[str], count: int) -> bool:
    """Submit the jobs and wait for those of this machine; whether all cells are done."""
    from boost_trl.comparison.launch import submit_shards

    jobs = submit_shards(executor, command, count)
    print(f"jobs {', '.join(job.job_id for job in jobs)}; logs in {executor.folder}")
    if executor.cluster != "local":
        print("when they are done, the same command without `--launcher` writes the report")
        return False
    for job in tqdm(jobs, desc="jobs", unit="job"):
        job.result()
    return True


def run(
    arguments: ReproduceArguments,
    reproduction: Reproduction,
    executor: Any,
    command: Sequence[str],
    given: Sequence[str],
) -> None:
    """Run the cells here, in several processes or as jobs, and report.

    Args:
        executor (`submitit.AutoExecutor`, *optional*): submits jobs.
        command (`Sequence[str]`): what follows the interpreter in a process that runs some of the cells.
        given (`Sequence[str]`): the command line, for the report.
    """
    from accelerate import PartialState

    from boost_trl.comparison.cells import run_cells, run_shards, saved_results, shard

    comparison, cells, state = reproduction.comparison, reproduction.cells, PartialState()
    done = saved_results(comparison, cells)
    if state.is_main_process and arguments.shard is None:
        print(plan(reproduction, done, arguments.jobs if executor else arguments.processes))
    if arguments.shard is not None:
        count = int(arguments.shard.split("/")[1])
        # As coarse as it can be, since data are made once per group.
        group = reproduction.group if len(set(map(reproduction.group, cells))) >= count else lambda cell: cell
        run_cells(comparison, shard(comparison, cells, arguments.shard, group))
        return
    if executor is not None and not jobs_finish(executor, command, arguments.jobs):
        return
    if arguments.processes > 1:
        run_shards(command, arguments.processes, comparison.folder, len(cells) - len(done))
    results = saved_results(comparison, cells) if arguments.report else run_cells(comparison, cells)
    if state.is_main_process:
        if not results:
            print("no cell has a result yet")
            return
        again = shlex.join(["boost-trl", "reproduce", *(word for word in given if word != "--report")])
        shown = reproduction.write_report(comparison.folder, results, again)
        print(f"\n{shown}\n\n{len(results)} of {len(cells)} cells; {comparison.folder}/report.html has all tables")
    state.wait_for_everyone()
