"""Learned trajectory weights on Twenty Questions, from nothing, in minutes on two cores.

A tiny language model learns the words and facts of a small world; a pool of offline dialogues is mixed with planted
noise and with dialogues that the model made up; thirteen methods train on it with the same number of policy updates
and play live games about categories that are in the small trusted set but not in the pool. Results go to
`outputs/twenty_questions/`; a run that was killed goes on where it stopped.

    python examples/twenty_questions.py
    python examples/twenty_questions.py --noise stale --algorithm ilql --seeds 0 1 2

The paper's setting (GPT-2, 40,000 dialogues about everyday objects, the paper's four methods), on one or several GPUs; a
flag overrides the file:

    accelerate launch examples/twenty_questions.py --config examples/configs/twenty_questions_mc.yaml
"""

import logging
import warnings
from dataclasses import dataclass, field
from functools import partial

from boost_trl import make_env
from boost_trl.comparison.arguments import TINY_MODEL_TRAINING, ComparisonArguments, parse_arguments
from boost_trl.comparison.offline_setting import build_setting
from boost_trl.comparison.recipe import compare
from boost_trl.environments.twenty_questions.noise import add_noise
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories
from boost_trl.environments.twenty_questions.pretraining import build_embedded_lm


@dataclass
class Arguments(ComparisonArguments):
    environment: str = field(default="twenty_questions", metadata={"help": "This example's environment."})


EMBEDDED = {
    "environment_kwargs": {"world": "small"},
    "dialogues": 3000,
    "validation_rows": 40,
    "noise": "bot",
    "methods": ["all"],
    "games": 256,
    "validation_games": 128,
    "output_dir": "outputs/twenty_questions",
    # Seed 0 chose settings.
    "seed": 1,
    "max_new_tokens": 8,
    **TINY_MODEL_TRAINING,
}
# At temperature 1 most of what so small a model makes up is noise, and a context that starts with an example is unlike
# any that it was trained on.
SELF_PLAY = {"batch_size": 256, "max_new_tokens": 8, "temperature": 0.5, "example": False}


def make_setting(arguments, training_args, model_args, seed: int, world: int | None = None):
    """Model, data and games: `world` (by default `seed`) has a small world's facts, `seed` draws the data."""
    world = seed if world is None else world
    make = partial(make_env, arguments.environment, **{"seed": world, **arguments.environment_kwargs})
    env = make()
    return build_setting(
        arguments,
        training_args,
        model_args,
        seed=seed,
        make_env=make,
        dialogues=offline_trajectories(env, arguments.dialogues, seed=seed),
        embedded_lm=lambda folder: build_embedded_lm(world_seed=world, cache_dir=folder),
        embedded_synthetic=SELF_PLAY,
        add_noise=lambda rows: add_noise(rows, env, arguments.noise, arguments.noise_share, seed=seed),
    )


def main(arguments, training_args, model_args) -> None:
    compare(
        "Twenty Questions",
        arguments,
        training_args,
        model_args,
        partial(make_setting, arguments, training_args, model_args),
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    main(*parse_arguments(Arguments, EMBEDDED))
