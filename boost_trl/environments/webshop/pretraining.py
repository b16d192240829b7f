"""The embedded default model of WebShop: a tiny LM that reads the small shop's pages and shops badly.

It learns to repeat what it reads, and episodes of mediocre policies, in other shops of the same kind, so that it has seen
every word but no product, request or episode that a user's pool can have. It speaks both roles' turns.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from .environment import WebShop
from .offline_data import offline_trajectories
from .small_catalogue import MAX_BOUND, MIN_PRICE, compact_vocabulary, generate_small_catalogue


if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

MEDIOCRE_MIX = {
    "expert": 0.25,
    "wanderer": 0.05,
    "wrong_option": 0.25,
    "wrong_item": 0.2,
    "hasty": 0.1,
    "random": 0.15,
}
# Shops of users have low seeds.
FIRST_SHOP, NUM_SHOPS = 1_000_000, 10
NUM_EPISODES, COPY_STEPS, EPISODE_STEPS = 8_000, 150, 450
LONGEST = 192


def pretraining_episodes(num_episodes: int = NUM_EPISODES, seed: int = 0) -> list[list[str]]:
    """Turns of mediocre episodes, an equal number in each of 10 small shops.

    Args:
        num_episodes (`int`, *optional*, defaults to 8000): how many.
        seed (`int`, *optional*, defaults to `0`): which shops and episodes.
    """
    episodes = []
    for shop in range(NUM_SHOPS):
        number = FIRST_SHOP + seed * NUM_SHOPS + shop
        env = WebShop(generate_small_catalogue(number), observation="compact", max_steps=8, results_per_page=3)
        rows = offline_trajectories(env, -(-num_episodes // NUM_SHOPS), seed=number, mix=MEDIOCRE_MIX)
        episodes += [[message["content"] for message in messages] for messages in rows["messages"]]
    return episodes[:num_episodes]


def small_vocabulary() -> list[str]:
    """Every word that compact pages, scripted policies and valid actions hold in small shops, sorted."""
    numbers = map(str, range(MIN_PRICE, MAX_BOUND + 1))
    return sorted({*compact_vocabulary(generate_small_catalogue()), *numbers})


def build_embedded_lm(
    cache_dir: str | Path | None = None, seed: int = 0
) -> "tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]":
    """The embedded model of small shops: trained on first use, then read from disk.

    It reads requests and searches for them first: in whole episodes repeating words is learned late.

    Args:
        cache_dir (`str` or `Path`, *optional*): where models are kept; the Hugging Face assets cache unless given.
        seed (`int`, *optional*, defaults to `0`): of texts, parameters and order.
    """
    from ..embedded_lm import build_from_texts, render, source_hash

    def stages():
        episodes = pretraining_episodes(NUM_EPISODES, seed)
        searches = [turns[:2] for turns in episodes]
        return [(render(searches), COPY_STEPS), (render(episodes), EPISODE_STEPS)]

    return build_from_texts(
        "webshop-small",
        small_vocabulary(),
        stages,
        seed=seed,
        cache_dir=cache_dir,
        made_with=[source_hash(__file__), NUM_EPISODES, COPY_STEPS, EPISODE_STEPS],
        max_length=LONGEST,
        initializer_range=0.1,
    )
