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

from boost_trl.comparison.offline_rl.worlds import get_world


# Its data, noise, tiny model and options.
WORLD = get_world("car_dealer")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    WORLD.compare(*WORLD.parse())
