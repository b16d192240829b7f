"""`boost-trl demo`: ways of training side by side in a small world, from nothing, in minutes on two cores."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from boost_trl.scripts.command_parser import CommandParser
from boost_trl.scripts.reproduce import OTHER_OPTIONS, flags_of, quiet


@dataclass
class DemoArguments:
    """Options of `boost-trl demo`; `None` is the world's own default."""

    # Not `env`: TRL's parser takes that entry of a YAML file for environment variables.
    environment: Literal["twenty_questions", "car_dealer", "webshop"] = field(
        default="twenty_questions", metadata={"help": "The world that agents are trained for and play in."}
    )
    algorithm: Literal["mc", "ilql"] | None = field(
        default=None, metadata={"help": "Monte Carlo (the default) or implicit language Q-learning."}
    )
    noise: Literal["none", "diverse", "stale", "bot", "weak"] | None = field(
        default=None,
        metadata={
            "help": "What 60 of 100 rows of the pool are: garbage of several kinds, logs of a world that has changed since, a bot that fakes "
            "successes (the default), or true logs of weaker policies."
        },
    )
    methods: list[str] | None = field(
        default=None, metadata={"help": "Methods, names of boost_trl.comparison.offline_rl.methods; all by default."}
    )
    seeds: list[int] | None = field(
        default=None, metadata={"help": "Worlds, each with data and training of its own; 1 by default."}
    )
    games: int | None = field(default=None, metadata={"help": "Live games behind every score; 256 by default."})
    output_dir: str | None = field(
        default=None, metadata={"help": "Where report, policy and runs are kept; outputs/ENVIRONMENT by default."}
    )


class DemoParser(CommandParser):
    """The command's parser. What is not its own is passed on to the comparison."""

    def __init__(self, prog: str | None = None):
        super().__init__(
            (DemoArguments,),
            prog,
            description="Pretrain a tiny language model, spoil most of a pool of dialogues, train on it in every way that this "
            "package knows, play live games, and write a report. A run that was stopped goes on.",
            epilog="Options of training and model are passed on (`boost-trl offline-rl --help-all` lists them).",
        )

    def parse_args_and_config(
        self, args: Iterable[str] | None = None, *rest: Any, **options: Any
    ) -> tuple[DemoArguments, list[str]]:
        """The arguments, and the options of the comparison."""
        return super().parse_args_and_config(args, return_remaining_strings=True)


def make_parser(prog: str | None = None) -> DemoParser:
    """The command's parser."""
    return DemoParser(prog)


def check_early(arguments: list[str], prog: str) -> None:
    """Refuse at once what `prepare` would refuse only after seconds of imports."""
    from boost_trl.scripts.early_checks import parse_own_options

    parse_own_options((DemoArguments,), OTHER_OPTIONS, arguments, prog)


def prepare(arguments: DemoArguments, flags: list[str]) -> Callable[[], None]:
    """Check everything; what is returned trains, plays and reports."""
    from boost_trl.comparison.offline_rl.comparison import OfflineRLComparison
    from boost_trl.comparison.offline_rl.worlds import get_world
    from boost_trl.scripts.early_checks import check_names

    own = {name: value for name, value in vars(arguments).items() if name != "environment"}
    world = get_world(arguments.environment)
    options = world.parse([*flags_of(own), *flags])
    OfflineRLComparison.choose(options.arguments.methods)
    check_names(
        (options.model_args.model_name_or_path,), (), arguments.environment, options.arguments.environment_options
    )

    def run() -> None:
        with quiet():
            world.compare(*options)

    return run
