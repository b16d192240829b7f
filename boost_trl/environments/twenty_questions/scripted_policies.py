"""Scripted policies of different quality."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.world import World, sample


class Beliefs:
    """Knowledge of a scripted policy in the middle of a game: the items that agree with all answers, and what was asked.

    Args:
        world (`World`): the world as the policy believes it to be.
        category (`str`, *optional*): the announced category, where there is one.
    """

    def __init__(self, world: World, category: str | None = None):
        self.world = world
        self.start = world.candidates(category)
        self.candidates = self.start
        self.asked: list[str] = []

    def hear(self, question: str, answer: str) -> None:
        """Take in one exchange."""
        self.asked.append(question)
        index, named = self.world.read(question)
        is_yes = answer.strip().lower().startswith("yes")
        if index is not None:
            self.candidates = self.candidates[self.world.table[self.candidates, index] == is_yes]
        elif named:
            self.candidates = self.candidates[np.isin(self.candidates, list(named)) == is_yes]

    def guess(self, items: Sequence[int] | np.ndarray, rng: random.Random) -> str:
        """Guess one of `items`, or any item where none is left (an answerer may contradict itself)."""
        return self.world.items[sample(items if len(items) else self.start, rng)].guess


Strategy = Callable[[Beliefs, random.Random], str]


@dataclass(frozen=True)
class Expert:
    """Asks what splits the remaining items best, ties at random, and guesses when at most two remain.

    Args:
        epsilon (`float`, *optional*, defaults to `0.0`): share of turns that are wasted on a random question or guess.
    """

    epsilon: float = 0.0

    def __call__(self, beliefs: Beliefs, rng: random.Random) -> str:
        if self.epsilon and rng.random() < self.epsilon:
            return random_question(beliefs, rng)
        if len(beliefs.candidates) <= 2:
            return beliefs.guess(beliefs.candidates, rng)
        count = beliefs.world.table[beliefs.candidates].sum(axis=0)
        imbalance = np.abs(2 * count - len(beliefs.candidates))
        best = np.flatnonzero(imbalance == imbalance.min())
        return beliefs.world.questions[sample(best, rng)].text


@dataclass(frozen=True)
class Curious:
    """Asks unplanned but new questions for a while, then guesses what agrees with the answers.

    Args:
        patience (`float`, *optional*, defaults to `0.3`): chance per turn to start guessing before it has to.
    """

    patience: float = 0.3

    def __call__(self, beliefs: Beliefs, rng: random.Random) -> str:
        new = [question.text for question in beliefs.world.questions if question.text not in beliefs.asked]
        if len(beliefs.candidates) > 1 and new and rng.random() > self.patience:
            return sample(new, rng)
        return beliefs.guess(beliefs.candidates, rng)


@dataclass(frozen=True)
class Enumerator:
    """Guesses one item after the other and learns from no answer but the no.

    Args:
        categories (`tuple[str, ...]`, *optional*): The categories it knows. Where categories are not announced it asks
            for them one by one first, and is lost in any other.
    """

    categories: tuple[str, ...] | None = None

    def __call__(self, beliefs: Beliefs, rng: random.Random) -> str:
        world = beliefs.world
        known = [
            i for i in beliefs.candidates if self.categories is None or world.items[i].category in self.categories
        ]
        if world.category_questions:
            categories = {world.items[index].category for index in known}
            if len(categories) > 1:
                return world.category_questions[sample(sorted(categories), rng)]
        asked = set(beliefs.asked)
        return beliefs.guess([index for index in known or beliefs.start if world.items[index].guess not in asked], rng)


def blind_guesser(beliefs: Beliefs, rng: random.Random) -> str:
    """Guesses at random, over and over."""
    return beliefs.guess(beliefs.start, rng)


def random_question(beliefs: Beliefs, rng: random.Random) -> str:
    """Asks or guesses at random: a question as often as a guess."""
    if rng.random() < 0.5:
        return sample(beliefs.world.questions, rng).text
    return beliefs.guess(beliefs.start, rng)


STRATEGIES: dict[str, Strategy] = {
    "expert": Expert(),
    "noisy_expert": Expert(epsilon=0.3),
    "confused_expert": Expert(epsilon=0.7),
    "curious": Curious(),
    "enumerator": Enumerator(),
    "blind_guesser": blind_guesser,
    "random": random_question,
}
DEFAULT_MIX = {"expert": 0.25, "noisy_expert": 0.25, "confused_expert": 0.2, "enumerator": 0.15, "blind_guesser": 0.15}


class ScriptedPolicy:
    """A scripted policy for `rollout`: `policy(conversations) -> replies`.

    Its random choices depend on `seed` and on the conversation, so that equal conversations get equal replies.

    Args:
        env (`TwentyQuestions` or `World`): the game, whose facts the policy knows.
        strategy (`str` or `Callable`, *optional*, defaults to `"expert"`): a key of `STRATEGIES`, or a function of
            [`Beliefs`] and random numbers that returns the next question.
        seed (`int`, *optional*, defaults to `0`): of its random choices.

    Raises:
        ValueError: for an unknown name.
    """

    def __init__(self, env: TwentyQuestions | World, strategy: Strategy | str = "expert", seed: int = 0):
        if isinstance(strategy, str) and strategy not in STRATEGIES:
            raise ValueError(f"no scripted policy is called {strategy!r}; there are {', '.join(STRATEGIES)}")
        self.world = env if isinstance(env, World) else env.world
        self.strategy = STRATEGIES[strategy] if isinstance(strategy, str) else strategy
        self.seed = seed

    def __call__(self, conversations: list[list[dict[str, str]]]) -> list[str]:
        return [self._reply([m for m in messages if m["role"] != "system"]) for messages in conversations]

    def _reply(self, messages: list[dict[str, str]]) -> str:
        opening = messages[0]["content"]
        category = next((c for c in self.world.categories if self.world.observation(c) == opening), None)
        beliefs = Beliefs(self.world, category)
        for question, answer in zip(messages[1::2], messages[2::2]):
            beliefs.hear(question["content"], answer["content"])
        return self.strategy(beliefs, random.Random(f"{self.seed} {messages}"))
