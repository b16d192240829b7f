"""The embedded default model of Car Dealer: a tiny LM that knows the small world's words and plays it badly.

It learns dialogues of mediocre policies, with the buyer's final words, from seeds and buyers that no pool and no
validation set uses, and to name wishes again. It has seen all brands, and speaks both roles' turns.
"""

import random
from pathlib import Path
from typing import TYPE_CHECKING

from .environment import CarDealer
from .language import SMALL_FORMS
from .market import BRANDS, FEATURES, SEGMENTS
from .offline_data import converse
from .scripted_policies import ScriptedPolicy


if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

MEDIOCRE_MIX = {
    "anchor_high_slow": 0.2,
    "quick_discounter": 0.2,
    "feature_matcher": 0.2,
    "stubborn": 0.15,
    "rambler": 0.15,
    "noise": 0.1,
}
# Tasks of users have low numbers; a thousand are skipped.
FIRST_BUYER, NUM_BUYERS = 1_000, 200


def pretraining_episodes(num_episodes: int, seed: int = 0) -> list[list[str]]:
    """Turns of mediocre dialogues in the small world, opening and the buyer's final words included.

    Args:
        num_episodes (`int`): how many.
        seed (`int`, *optional*, defaults to `0`): which.
    """
    env = CarDealer(world="small", buyers_per_brand=FIRST_BUYER + NUM_BUYERS)
    tasks = [task for task in env.tasks() if int(task.id.rsplit("-", 1)[1]) >= FIRST_BUYER]
    dialogues = []
    for index in range(num_episodes):
        rng = random.Random(f"car_dealer pretraining {seed} {index}")
        name = rng.choices(list(MEDIOCRE_MIX), list(MEDIOCRE_MIX.values()))[0]
        game_seed, task = rng.getrandbits(31), rng.choice(tasks)
        messages, _, _ = converse(env, ScriptedPolicy(env, name, game_seed, slips=0.3), task, game_seed)
        dialogues.append([message["content"] for message in messages])
    return dialogues


def wish_lists(num_lists: int, seed: int = 0) -> list[list[str]]:
    """Wishes, named again one for one: what a seller who wants to answer a wish has to be able to say.

    Args:
        num_lists (`int`): how many.
        seed (`int`, *optional*, defaults to `0`): which.
    """
    rng = random.Random(f"car_dealer wishes {seed}")
    lists = [" ".join(rng.sample(FEATURES, rng.randint(1, 3))) for _ in range(num_lists)]
    return [[f"want {wishes}", f"has {wishes}"] for wishes in lists]


def small_vocabulary() -> list[str]:
    """Every word of the small world, sorted; for a word-level tokenizer."""
    words = {word for text in SMALL_FORMS.values() for word in text.split() if not word.startswith("{")}
    words |= {"minimum", ";", "?", *FEATURES, *(segment.name for segment in SEGMENTS)}
    words |= {brand.lower() for brand in BRANDS} | {str(price) for price in range(50, 111)}
    return sorted(words)


def build_embedded_lm(
    cache_dir: str | Path | None = None, steps: int = 800, seed: int = 0
) -> "tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]":
    """The embedded model of the small world: trained on first use, then read from disk.

    Args:
        cache_dir (`str` or `Path`, *optional*): where models are kept; the Hugging Face assets cache unless given.
        steps (`int`, *optional*, defaults to 800): updates.
        seed (`int`, *optional*, defaults to `0`): of texts, parameters and order.
    """
    from ..embedded_lm import build_from_texts, render

    episodes = pretraining_episodes(12_000, seed) + wish_lists(6_000, seed)
    random.Random(seed).shuffle(episodes)
    return build_from_texts(
        "car_dealer-small",
        small_vocabulary(),
        [(render(episodes), steps)],
        seed=seed,
        cache_dir=cache_dir,
        max_length=160,
    )
