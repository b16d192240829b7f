"""Learned trajectory weights on Twenty Questions, from nothing, in minutes on two cores.

A tiny language model learns the words and facts of a small world; a pool of offline dialogues is mixed with planted
noise and with dialogues that the model made up; fourteen methods train on it with the same number of policy updates
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

from boost_trl.comparison.offline_rl.worlds import get_world


# Its data, noise, tiny model and options.
WORLD = get_world("twenty_questions")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("boost_trl").setLevel(logging.ERROR)
    WORLD.compare(*WORLD.parse())
