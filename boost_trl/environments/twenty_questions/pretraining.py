"""The embedded default model of Twenty Questions: a tiny LM that knows a world and plays it badly.

It learns the world's facts, its questions and dialogues of mediocre players, from random numbers that no pool and no
validation set uses. It has seen all categories' words, and speaks both roles' turns.
"""

import random
from pathlib import Path

from boost_trl.environments.embedded_lm import END, build_from_texts
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.players import PLAYERS, Beliefs, opening_messages
from boost_trl.environments.twenty_questions.world import World, sample


MEDIOCRE_MIX = {"curious": 0.3, "confused_expert": 0.3, "random": 0.25, "blind_guesser": 0.15}


def pretraining_texts(world: World, num_dialogues: int, num_facts: int, seed: int = 0) -> list[str]:
    """What the embedded model reads, in random order.

    Args:
        world (`World`): the world.
        num_dialogues (`int`): dialogues of mediocre players, with the final answer.
        num_facts (`int`): lists of questions and answers about a named item.
        seed (`int`, *optional*, defaults to `0`): which texts.
    """
    rng = random.Random(f"pretraining {seed}")
    env = TwentyQuestions(world=world)
    texts = [_dialogue(env, rng) for _ in range(num_dialogues)] + [_fact(world, rng) for _ in range(num_facts)]
    rng.shuffle(texts)
    return texts


def _dialogue(env: TwentyQuestions, rng: random.Random) -> str:
    player = PLAYERS[rng.choices(list(MEDIOCRE_MIX), list(MEDIOCRE_MIX.values()))[0]]
    observation, info = env.reset(task=sample(env.tasks(), rng))
    turns = [message["content"] for message in opening_messages(env, observation)]
    beliefs, terminated = Beliefs(env.world, info["category"]), False
    while not terminated:
        action = player(beliefs, rng)
        answer, _, terminated, _, _ = env.step(action)
        beliefs.hear(action, answer)
        turns += [action, answer]
    return "".join(turn + END for turn in turns)


def _fact(world: World, rng: random.Random) -> str:
    """A named item and the answers to some questions about it."""
    item = sample(world.items, rng)
    questions = rng.sample(world.questions, k=min(8, len(world.questions)))
    turns = [item.names[0]]
    for question in questions:
        turns += [question.text, world.answer(question.text, item)]
    return "".join(turn + END for turn in turns)


def world_words(world: World) -> list[str]:
    """All words that a world's own texts use, sorted."""
    texts = [world.yes, world.no, *(world.observation(category) for category in world.categories), world.system_prompt]
    texts += [wording for question in world.questions for wording in (question.text, *question.paraphrases)]
    texts += [text for item in world.items for text in (*item.names, item.guess)]
    return sorted({word for text in texts for word in text.split()})


def build_embedded_lm(
    world_seed: int = 0,
    cache_dir: str | Path | None = None,
    steps: int = 1500,
    seed: int = 0,
):
    """The embedded model of a small world: trained on first use, then read from disk.

    Args:
        world_seed (`int`, *optional*, defaults to `0`): which small world (`TwentyQuestions(seed=world_seed)`).
        cache_dir (`str` or `Path`, *optional*): where models are kept; the Hugging Face assets cache unless given.
        steps (`int`, *optional*, defaults to 1500): updates.
        seed (`int`, *optional*, defaults to `0`): of texts, parameters and order.

    Returns:
        `tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]`
    """
    world = TwentyQuestions(world="small", seed=world_seed).world
    texts = pretraining_texts(world, num_dialogues=12_000, num_facts=2_000, seed=seed)
    return build_from_texts(
        f"twenty_questions-small-{world_seed}",
        world_words(world),
        texts,
        steps=steps,
        seed=seed,
        cache_dir=cache_dir,
        max_length=128,
    )
