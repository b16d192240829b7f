"""Learned trajectory weights on Car Dealer, from nothing, in minutes on two cores.

A tiny language model learns the words of a small market; a pool of dialogues of scripted policies is mixed with planted
noise and with dialogues that the model made up; thirteen methods train on it with the same number of policy updates
and sell cars of brands that are in the small trusted set but not in the pool. Results go to `outputs/car_dealer/`; a
run that was killed goes on where it stopped.

    python examples/car_dealer.py
    python examples/car_dealer.py --noise stale --algorithm ilql --seeds 2 3 4

The paper's setting (GPT-2, 4,400 dialogues in sentences and dollars, the paper's four methods), on one or several GPUs; a
flag overrides the file:

    accelerate launch examples/car_dealer.py --config examples/configs/car_dealer_mc.yaml
"""

import logging
import warnings
from dataclasses import dataclass, field
from functools import partial

from boost_trl import make_env
from boost_trl.comparison.arguments import TINY_MODEL_TRAINING, ComparisonArguments, parse_arguments
from boost_trl.comparison.offline_setting import build_setting
from boost_trl.comparison.recipe import compare
from boost_trl.environments.car_dealer.noise import add_noise
from boost_trl.environments.car_dealer.offline_data import offline_trajectories
from boost_trl.environments.car_dealer.pretraining import build_embedded_lm


@dataclass
class Arguments(ComparisonArguments):
    environment: str = field(default="car_dealer", metadata={"help": "This example's environment."})
    dialogues: int = field(default=4400, metadata={"help": "Offline dialogues before the split by brand."})


EMBEDDED = {
    "environment_kwargs": {"world": "small"},
    "dialogues": 3000,
    "validation_rows": 40,
    "noise": "bot",
    "methods": ["all"],
    "games": 256,
    "validation_games": 128,
    "output_dir": "outputs/car_dealer",
    # Seed 0 chose settings.
    "seed": 1,
    "max_new_tokens": 8,
    **TINY_MODEL_TRAINING,
}
# At temperature 1 most of what so small a model makes up is noise, and a context that starts with an example is unlike
# any that it was trained on.
SELF_PLAY = {"batch_size": 256, "max_new_tokens": 8, "temperature": 0.5, "example": False}


def make_setting(arguments, training_args, model_args, seed: int):
    """Model, data and games of one seed; brands and buyers are the same for all."""
    make = partial(make_env, arguments.environment, **arguments.environment_kwargs)
    env = make()
    return build_setting(
        arguments,
        training_args,
        model_args,
        seed=seed,
        make_env=make,
        dialogues=offline_trajectories(env, arguments.dialogues, seed=seed),
        embedded_lm=build_embedded_lm,
        embedded_synthetic=SELF_PLAY,
        add_noise=lambda rows: add_noise(rows, env, arguments.noise, arguments.noise_share, seed=seed),
    )


def main(arguments, training_args, model_args) -> None:
    compare(
        "Car Dealer",
        arguments,
        training_args,
        model_args,
        partial(make_setting, arguments, training_args, model_args),
    )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    main(*parse_arguments(Arguments, EMBEDDED))
