"""Options of an offline RL comparison: its own, the trainer's and the model's, from flags or a YAML file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from trl import ModelConfig, TrlParser

from boost_trl.environments.options import EnvironmentOptions
from boost_trl.environments.planted_noise import NOISE_KINDS
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.offline_rl.schedule import check_max_steps


PAPER_METHODS = ("vanilla", "vanilla_synthetic", "bilevel", "boost")


@dataclass
class ComparisonArguments(EnvironmentOptions):
    """Data and games of a comparison. The defaults are the paper's setting ([B] §5, Table 2)."""

    # Not `env`: TRL's parser takes that entry of a YAML file for environment variables.
    environment: str = field(default="", metadata={"help": "The example's environment, as YAML files name it."})
    environment_kwargs: dict[str, Any] | str | None = field(
        default=None, metadata={"help": 'Options of the environment as JSON, such as \'{"world": "full"}\'.'}
    )
    dialogues: int = field(default=40_000, metadata={"help": "Offline dialogues before the split by category."})
    train_task_frac: float = field(default=0.6, metadata={"help": "Share of the categories that train."})
    val_split: float = field(default=0.3, metadata={"help": "Share of a held-out category's rows that validate."})
    validation_rows: int | None = field(
        default=None, metadata={"help": "Size of the trusted validation set, at most; the whole split by default."}
    )
    train_fraction: float = field(
        default=1.0, metadata={"help": "Low-data setting: share of the training rows that is used."}
    )
    noise: str = field(
        default="none",
        metadata={
            "help": "Planted noise among the offline training rows: 'none', 'diverse' (garbage, wrong worlds, faked "
            "successes, hot self-play), 'stale' (logs of a world whose facts have changed), 'bot' (a bot that fakes "
            "successes) or 'weak' (true logs of weaker policies)."
        },
    )
    noise_share: float = field(default=0.6, metadata={"help": "Share of the offline training rows that is noise."})
    seeds: list[int] | None = field(
        default=None,
        metadata={"help": "Worlds to run, each with its own data and training; `seed` alone by default."},
    )
    methods: list[str] = field(
        default_factory=lambda: list(PAPER_METHODS), metadata={"help": "Methods to run, or 'all'."}
    )
    finish_shares: list[float] | None = field(
        default=None,
        metadata={
            "help": "Train every method that mixes validation rows in once with each of these shares as `finish_share`, and "
            "report the one that does best in the games on validation tasks; `finish_share` alone by default. The row "
            "'by_games' has candidates of its own."
        },
    )
    games: int = field(default=64, metadata={"help": "Live games behind every reported score."})
    validation_games: int = field(
        default=64,
        metadata={
            "help": "Live games on validation tasks behind every β; a method that is trained in several ways divides them "
            "among these."
        },
    )

    unseen_tasks: bool = field(
        default=False,
        metadata={
            "help": "Play only tasks that no validation row has: a third of the evaluation tasks that are left choose β, "
            "weights and finishing, the others are reported. By default the tasks of the validation rows choose, where a "
            "policy that knows these rows by heart looks better than it is."
        },
    )

    def __post_init__(self):
        if self.environment != type(self).environment:
            raise ValueError(
                f"`environment` is {self.environment!r}, but this example plays {type(self).environment!r}: give it a "
                "configuration of its own environment"
            )
        if self.noise not in ("none", *NOISE_KINDS):
            raise ValueError(f"`noise` must be one of none, {', '.join(NOISE_KINDS)}, got {self.noise!r}")
        self._check_numbers()
        if self.finish_shares is not None and not (self.finish_shares and all(0 <= s < 1 for s in self.finish_shares)):
            raise ValueError(f"`finish_shares` must be numbers in [0, 1), got {self.finish_shares}")
        self.environment_kwargs = self.environment_options

    def _check_numbers(self) -> None:
        for name in ("dialogues", "games", "validation_games", "validation_rows"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ValueError(f"`{name}` must be at least 1, got {number}")
        for name in ("train_task_frac", "val_split"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie strictly between 0 and 1, got {getattr(self, name)}")
        if not 0 < self.train_fraction <= 1:
            raise ValueError(f"`train_fraction` must be above 0 and at most 1, got {self.train_fraction}")
        if not 0 <= self.noise_share <= 1:
            raise ValueError(f"`noise_share` must be between 0 and 1, got {self.noise_share}")


def parse_arguments(
    arguments_type: type[ComparisonArguments], embedded: dict[str, Any], argv: Sequence[str] | None = None
) -> tuple[ComparisonArguments, BilevelOfflineRLConfig, ModelConfig]:
    """Flags, over the entries of `--config`, over the defaults.

    Args:
        arguments_type (`type`): the example's dataclass.
        embedded (`dict`): defaults that count when neither flags nor file name a model.
        argv (`Sequence[str]`, *optional*): flags; the process's own by default.

    Returns:
        The example's arguments, the trainer's and the model's. `model_name_or_path` is `None` for the embedded model.

    Raises:
        ValueError: for an option that does not exist or a value that is out of range, naming it.
    """
    peek = TrlParser(ModelConfig, add_help=False)
    named = peek.parse_args_and_config(argv, return_remaining_strings=True)[0].model_name_or_path is not None
    parser = TrlParser(
        (arguments_type, BilevelOfflineRLConfig, ModelConfig), usage="%(prog)s [--config FILE.yaml] [OPTIONS]"
    )
    if not named and (unknown := parser.set_defaults_with_config(**embedded)):
        raise ValueError(f"embedded defaults of options that do not exist: {unknown}")
    arguments, training_args, model_args = parser.parse_args_and_config(argv)
    if not named and (model_args.use_peft or model_args.load_in_4bit or model_args.load_in_8bit):
        raise ValueError("adapters and quantised weights are for a model that is named: give `--model_name_or_path`")
    if training_args.method != "boost" or training_args.reweighting != "learned":
        raise ValueError("`method` and `reweighting` are what is compared: choose among the rows with `--methods`")
    if training_args.max_steps > 0:
        check_max_steps(training_args.max_steps, training_args.auxiliary_steps, training_args.primary_steps)
    return arguments, training_args, model_args


# What does not change a result, or is part of its name.
_NOT_SETTINGS = {
    *("seeds", "seed", "methods", "output_dir", "cache_dir", "environment", "method", "reweighting"),
    *("logging_dir", "logging_steps", "logging_strategy", "report_to", "run_name", "disable_tqdm", "log_level"),
    *("save_strategy", "save_steps", "save_total_limit", "push_to_hub", "hub_model_id", "hub_token", "hub_strategy"),
    *("hub_private_repo", "hub_revision", "ddp_backend", "ddp_timeout", "project", "trackio_space_id"),
    *("resume_from_checkpoint", "local_rank", "dataloader_pin_memory", "remove_unused_columns"),
    # Objects that the configuration itself makes of its defaults.
    *("accelerator_config", "debug"),
}


def settings_of(*parts: Any) -> dict[str, Any]:
    """The settings that results depend on, beside method and seed: the fields of the dataclasses `parts` that differ
    from their defaults, with JSON values, and the number of processes if there are several."""
    from accelerate import PartialState

    settings: dict[str, Any] = {}
    for part in parts:
        for entry in fields(part):
            value = getattr(part, entry.name)
            default = entry.default_factory() if callable(entry.default_factory) else entry.default
            if entry.name not in _NOT_SETTINGS and value != default:
                settings[entry.name] = value
    if (processes := PartialState().num_processes) > 1:
        settings["processes"] = processes
    return json.loads(json.dumps(settings, default=str))
