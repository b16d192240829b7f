"""Learned trajectory weights on WebShop, from nothing, in minutes on two cores.

A tiny language model learns to read the pages of small shops; a pool of scripted policies' episodes is mixed with
planted noise and with episodes that the model made up; thirteen methods train on it with the same number of policy
updates and shop for categories that are in the small trusted set but not in the pool. Results go to
`outputs/webshop/`; a run that was killed goes on where it stopped.

    accelerate launch examples/webshop.py
    python examples/webshop.py --noise stale --algorithm ilql --seeds 0 1 2

The paper's setting (Llama-3-8B with QLoRA, 2,000 episodes in a shop of 10,000 products, the paper's four methods), on one
or several GPUs; a flag overrides the file:

    accelerate launch examples/webshop.py --config examples/configs/webshop_mc.yaml
"""

import logging
import warnings

from boost_trl.comparison.offline_rl.worlds import get_world


# Its data, noise, tiny model and options.
WORLD = get_world("webshop")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    WORLD.compare(*WORLD.parse())
