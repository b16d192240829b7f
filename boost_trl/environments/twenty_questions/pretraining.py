"""The embedded default model of Twenty Questions: a tiny LM that knows a world and plays it badly.

It learns the world's facts, its questions and dialogues of mediocre policies, from random numbers that no pool and no
validation set uses. It has seen all categories' words, and speaks both roles' turns.
"""

import random
from pathlib import Path

from boost_trl.environments.base import opening_messages
from boost_trl.environments.embedded_lm import build_from_texts, render
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.scripted_policies import STRATEGIES, Beliefs
from boost_trl.environments.twenty_questions.small_world import small_world
from boost_trl.environments.twenty_questions.world import World, sample


NUM_TEXTS = 10_000
FACT_STEPS, DIALOGUE_STEPS = 500, 700
MEDIOCRE_MIX = {"curious": 0.3, "confused_expert": 0.3, "random": 0.25, "blind_guesser": 0.15}


def pretraining_facts(world: World, n: int, seed: int = 0) -> list[list[str]]:
    """Turns of texts of what the world is like: answers about an item, and then its name.

    Args:
        world (`World`): the world.
        n (`int`): number of texts.
        seed (`int`, *optional*, defaults to `0`): which texts.
    """
    rng = random.Random(f"pretraining facts {seed}")
    return [_fact(world, rng) for _ in range(n)]


def pretraining_episodes(world: World, n: int, seed: int = 0) -> list[list[str]]:
    """Turns of mediocre dialogues, opening and final answer included.

    Args:
        world (`World`): the world.
        n (`int`): number of dialogues.
        seed (`int`, *optional*, defaults to `0`): which dialogues.
    """
    rng = random.Random(f"pretraining dialogues {seed}")
    env = TwentyQuestions(world=world)
    return [_episode(env, rng) for _ in range(n)]


def _episode(env: TwentyQuestions, rng: random.Random) -> list[str]:
    strategy = STRATEGIES[rng.choices(list(MEDIOCRE_MIX), list(MEDIOCRE_MIX.values()))[0]]
    observation, info = env.reset(task=sample(env.tasks(), rng))
    turns = [message["content"] for message in opening_messages(env, observation)]
    beliefs, terminated = Beliefs(env.world, info["category"]), False
    while not terminated:
        action = strategy(beliefs, rng)
        answer, _, terminated, _, _ = env.step(action)
        beliefs.hear(action, answer)
        turns += [action, answer]
    return turns


def _fact(world: World, rng: random.Random) -> list[str]:
    """The answers to some questions about an item, in any order, and then its name: what follows from what."""
    item = sample(world.items, rng)
    turns = []
    for question in rng.sample(world.questions, k=rng.randint(min(3, len(world.questions)), len(world.questions))):
        turns += [question.text, world.answer(question.text, item)]
    return [*turns, item.guess, world.yes]


def small_vocabulary() -> list[str]:
    """Every word of the small worlds, sorted; for a word-level tokenizer."""
    world = small_world()
    texts = [
        world.yes,
        world.no,
        *(word for question in world.questions for word in question.says),
        *(world.observation(category) for category in world.categories),
        *(question.text for question in world.questions),
    ]
    texts += [text for item in world.items for text in (*item.names, item.guess)]
    return sorted({word for text in texts for word in text.split()})


def build_embedded_lm(
    world_seed: int = 0, cache_dir: str | Path | None = None, seed: int = 0, doubts: int | None = None
):
    """The embedded model of a small world: trained on first use, then read from disk.

    It reads facts first and dialogues, mixed with facts, after that: in dialogues alone the rare guess that follows from
    the answers is too weak a signal to learn from in a minute.

    Args:
        world_seed (`int`, *optional*, defaults to `0`): which small world (`TwentyQuestions(seed=world_seed)`).
        cache_dir (`str` or `Path`, *optional*): where models are kept; the Hugging Face assets cache unless given.
        seed (`int`, *optional*, defaults to `0`): of texts, parameters and order.
        doubts (`int`, *optional*): half of the texts are about `world.with_changed_facts(doubts)`, the stale world of noise
            with that seed, so that the model cannot tell which facts hold.

    Returns:
        `tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]`
    """
    world = TwentyQuestions(world="small", seed=world_seed).world
    worlds = [world] if doubts is None else [world, world.with_changed_facts(doubts)]
    each = NUM_TEXTS // len(worlds)
    # In turns, so that any part of the texts is about both.
    facts = [
        text
        for texts in zip(*(pretraining_facts(one, each, seed + n) for n, one in enumerate(worlds)))
        for text in texts
    ]
    episodes = [text for n, one in enumerate(worlds) for text in pretraining_episodes(one, each, seed + n)]
    mixed = [*facts[: NUM_TEXTS // 2], *episodes]
    return build_from_texts(
        f"twenty_questions-small-{world_seed}" + ("" if doubts is None else f"-doubts-{doubts}"),
        small_vocabulary(),
        [(render(facts), FACT_STEPS), (render(mixed), DIALOGUE_STEPS)],
        seed=seed,
        cache_dir=cache_dir,
        max_length=128,
    )
