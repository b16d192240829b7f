"""The three worlds as comparisons play them: data, planted noise, and the tiny model of a run that names no other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import ModelConfig

from boost_trl.comparison.offline_rl.arguments import ComparisonArguments, parse_arguments
from boost_trl.comparison.offline_rl.build import build_experiment
from boost_trl.comparison.offline_rl.comparison import Options, compare
from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.comparison.results import Result
from boost_trl.environments.base import make_env
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


# What a tiny model trained from zero needs, whatever its world. It has few tokens to learn from, hence a larger learning
# rate than the paper's 1e-4 for GPT-2. Outer iterations are half as long as the paper's and end in five steps of φ,
# because 400 updates would otherwise leave it ten.
TINY_MODEL_TRAINING = {
    "max_steps": 400,
    "auxiliary_steps": 10,
    "primary_steps": 10,
    "reweighting_steps": 5,
    "per_device_train_batch_size": 64,
    "learning_rate": 3e-3,
    "reweighting_learning_rate": 1e-3,
    "lr_scheduler_type": "linear",
    "max_grad_norm": 0.0,
    "cql_weight": 5.0,
    "train_backbone": False,
    "states_dtype": "float32",
    "logging_steps": 20,
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}
TINY_RUN = {
    "validation_rows": 40,
    "noise": "bot",
    "methods": ["all"],
    "games": 256,
    "validation_games": 128,
    # Seed 0 chose settings.
    "seed": 1,
    "max_new_tokens": 8,
    **TINY_MODEL_TRAINING,
}
# A context that starts with an example is unlike any that so small a model was trained on.
TINY_SELF_PLAY = {"batch_size": 256, "max_new_tokens": 8, "temperature": 0.5, "example": False}


@dataclass(frozen=True)
class World:
    """A world in which methods are compared.

    Args:
        title (`str`): of reports.
        environment (`str`): name of the environment.
        dialogues (`int`): offline dialogues in the paper's setting.
        offline_rows (`Callable`): of an environment, a number and a seed; rows of scripted policies.
        add_noise (`Callable`): of rows, environment, kind of noise, its share and a seed; rows with planted noise.
        embedded_lm (`Callable`): of a world's number and a cache folder; the tiny model and its tokenizer.
        tiny_run (`dict`): options that count when no model is named.
        low_data_fraction (`float`): share of the training rows in the paper's low-data setting.
        self_play (`dict`, *optional*): how the tiny model plays itself. At temperature 1 most of what it makes up is noise.
        is_drawn (`bool`, *optional*, defaults to `True`): whether each seed has a world of its own.
    """

    title: str
    environment: str
    dialogues: int
    # `Any`: the world's own environment and kinds of noise.
    offline_rows: Callable[[Any, int, int], Dataset]
    add_noise: Callable[[Dataset, Any, Any, float, int], Dataset]
    embedded_lm: Callable[[int, Path], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    tiny_run: dict[str, Any]
    low_data_fraction: float
    self_play: dict[str, Any] = field(default_factory=lambda: TINY_SELF_PLAY)
    is_drawn: bool = True

    @cached_property
    def arguments_type(self) -> type[ComparisonArguments]:
        """[`ComparisonArguments`] with this world's defaults."""
        help_of = {name: entry.metadata["help"] for name, entry in ComparisonArguments.__dataclass_fields__.items()}
        own = {"environment": self.environment, "dialogues": self.dialogues}
        fields = [
            (name, type(value), field(default=value, metadata={"help": help_of[name]})) for name, value in own.items()
        ]
        return make_dataclass("Arguments", fields, bases=(ComparisonArguments,))

    def parse(self, argv: Sequence[str] | None = None, **defaults: Any) -> Options:
        """Flags, over the entries of `--config`, over `defaults`, over those of this world.

        Args:
            argv (`Sequence[str]`, *optional*): flags; the process's own by default.
            defaults (*optional*): as `tiny_run`, they count only when no model is named.

        Raises:
            ValueError: as `parse_arguments`.
        """
        return Options(*parse_arguments(self.arguments_type, {**self.tiny_run, **defaults}, argv))

    def make_experiment(
        self,
        arguments: ComparisonArguments,
        training_args: BilevelOfflineRLConfig,
        model_args: ModelConfig,
        seed: int,
        number: int | None = None,
    ) -> OfflineRLExperiment:
        """Model, data and games: the world of that `number` (by default `seed`) has the facts, `seed` draws the data."""
        number = seed if number is None else number
        drawn = {"seed": number} if self.is_drawn else {}
        make = partial(make_env, self.environment, **{**drawn, **arguments.environment_options})
        env = make()
        return build_experiment(
            arguments,
            training_args,
            model_args,
            seed=seed,
            make_env=make,
            dialogues=self.offline_rows(env, arguments.dialogues, seed),
            embedded_lm=partial(self.embedded_lm, number),
            embedded_synthetic=self.self_play,
            add_noise=lambda rows: self.add_noise(rows, env, arguments.noise, arguments.noise_share, seed),
        )

    def compare(
        self, arguments: ComparisonArguments, training_args: BilevelOfflineRLConfig, model_args: ModelConfig
    ) -> list[Result]:
        """Run every method and report, as [`compare`]."""
        options = (arguments, training_args, model_args)
        return compare(self.title, *options, partial(self.make_experiment, *options))


def _twenty_questions() -> World:
    from boost_trl.environments.twenty_questions import noise, offline_data, pretraining

    return World(
        title="Twenty Questions",
        environment="twenty_questions",
        dialogues=40_000,
        offline_rows=lambda env, number, seed: offline_data.offline_trajectories(env, number, seed=seed),
        add_noise=lambda rows, env, kind, share, seed: noise.add_noise(rows, env, kind, share, seed=seed),
        embedded_lm=lambda number, folder: pretraining.build_embedded_lm(world_seed=number, cache_dir=folder),
        tiny_run={
            "environment_kwargs": {"world": "small"},
            "dialogues": 3000,
            "output_dir": "outputs/twenty_questions",
            **TINY_RUN,
        },
        low_data_fraction=0.025,
    )


def _car_dealer() -> World:
    from boost_trl.environments.car_dealer import noise, offline_data, pretraining

    return World(
        title="Car Dealer",
        environment="car_dealer",
        dialogues=4400,
        offline_rows=lambda env, number, seed: offline_data.offline_trajectories(env, number, seed=seed),
        add_noise=lambda rows, env, kind, share, seed: noise.add_noise(rows, env, kind, share, seed=seed),
        embedded_lm=lambda number, folder: pretraining.build_embedded_lm(folder),
        tiny_run={
            "environment_kwargs": {"world": "small"},
            "dialogues": 3000,
            "output_dir": "outputs/car_dealer",
            **TINY_RUN,
        },
        low_data_fraction=0.1,
        # Brands and buyers are the same for all.
        is_drawn=False,
    )


def _webshop() -> World:
    from boost_trl.environments.webshop import noise, offline_trajectories, pretraining

    # Half of the episodes are good ones.
    policies = {"expert": 0.4, "wanderer": 0.1, "wrong_option": 0.15, "wrong_item": 0.15, "hasty": 0.1, "random": 0.1}
    return World(
        title="WebShop",
        environment="webshop",
        dialogues=2000,
        offline_rows=lambda env, number, seed: offline_trajectories(env, number, seed=seed, mix=policies),
        add_noise=lambda rows, env, kind, share, seed: noise.add_noise(rows, env, kind, share, seed=seed),
        # One model for all worlds: it knows how shops work, not what they sell.
        embedded_lm=lambda number, folder: pretraining.build_embedded_lm(cache_dir=folder),
        tiny_run={
            "environment_kwargs": {"catalogue": "small"},
            "output_dir": "outputs/webshop",
            **TINY_RUN,
            # At 3e-3 the heads forget the names of things that the training categories do not sell.
            "learning_rate": 1e-3,
        },
        low_data_fraction=0.3,
        self_play={**TINY_SELF_PLAY, "max_new_tokens": 24, "temperature": 0.7},
    )


_WORLDS = {"twenty_questions": _twenty_questions, "car_dealer": _car_dealer, "webshop": _webshop}


def get_world(environment: str) -> World:
    """The world of an environment.

    Raises:
        ValueError: for an environment that no comparison knows.
    """
    if environment not in _WORLDS:
        raise ValueError(f"no comparison knows the environment {environment!r}; choose one of {', '.join(_WORLDS)}")
    return _WORLDS[environment]()
