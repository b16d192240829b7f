"""Scripted players of different quality, and the offline dialogues that they leave behind."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, Features, List, Value

from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.world import World, sample


class Beliefs:
    """What a player knows in the middle of a game: the items that agree with all answers, and what was asked.

    Args:
        world (`World`): the world as the player believes it to be.
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

    def guess(self, items: Sequence[int], rng: random.Random) -> str:
        """Guess one of `items`, or any item where none is left (an oracle may contradict itself)."""
        return self.world.items[sample(items if len(items) else self.start, rng)].guess


Player = Callable[[Beliefs, random.Random], str]


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
        categories (`tuple[str, ...]`, *optional*):
            The categories it knows. Where categories are not announced it asks for them one by one first, and is lost
            in any other.
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


PLAYERS: dict[str, Player] = {
    "expert": Expert(),
    "noisy_expert": Expert(epsilon=0.3),
    "confused_expert": Expert(epsilon=0.7),
    "curious": Curious(),
    "enumerator": Enumerator(),
    "blind_guesser": blind_guesser,
    "random": random_question,
}
DEFAULT_MIX = {"expert": 0.25, "noisy_expert": 0.25, "confused_expert": 0.2, "enumerator": 0.15, "blind_guesser": 0.15}

PARAPHRASED_SHARE = 0.08

FEATURES = Features(
    {
        "messages": List({"role": Value("string"), "content": Value("string")}),
        "rewards": List(Value("float64")),
        "terminated": Value("bool"),
        "category": Value("string"),
        "source": Value("string"),
        "task": {
            "id": Value("string"),
            "category": Value("string"),
            "prompt": Value("string"),
            "data": Value("string"),
        },
        "policy": Value("string"),
        "score": Value("float64"),
        "success": Value("bool"),
        "is_noise": Value("bool"),
        "noise_kind": Value("string"),
    }
)


def play(env: TwentyQuestions, player: Player, task_id: str, rng: random.Random, **columns: Any) -> dict[str, Any]:
    """One game of a scripted player, as a row of the trajectory format (`FEATURES`).

    The final answer is not part of the row: the last action ends the episode.

    Args:
        env (`TwentyQuestions`): the game.
        player (`Callable[[Beliefs, random.Random], str]`): the player, which believes `env.world`.
        task_id (`str`): what to guess.
        rng (`random.Random`): the player's randomness.
        columns (*optional*): columns that are set, e.g. `policy="expert"`.
    """
    observation, info = env.reset(task=task_id)
    beliefs = Beliefs(env.world, info["category"])
    messages, rewards, terminated = opening_messages(env, observation), [], False
    while not terminated:
        action = _reworded(env.world, player(beliefs, rng), rng)
        observation, reward, terminated, _, info = env.step(action)
        beliefs.hear(action, observation)
        messages += [{"role": "assistant", "content": action}, {"role": "user", "content": observation}]
        rewards.append(reward)
    return make_row(task_id, info["category"], messages[:-1], rewards, info["score"], info["success"], **columns)


def _reworded(world: World, action: str, rng: random.Random) -> str:
    """Now and then another wording of the same question, where the world has one: people do not speak from a list."""
    question, _ = world.read(action)
    if question is not None and world.questions[question].paraphrases and rng.random() < PARAPHRASED_SHARE:
        return sample(world.questions[question].paraphrases, rng)
    return action


def opening_messages(env: TwentyQuestions, observation: str) -> list[dict[str, str]]:
    """The messages before the first action."""
    system = [{"role": "system", "content": env.system_prompt}] if env.system_prompt else []
    return [*system, {"role": "user", "content": observation}]


def make_row(task_id, category, messages, rewards, score, success, **columns) -> dict[str, Any]:
    """A row of `FEATURES`; columns that are not given describe real offline data."""
    task = {"id": task_id, "category": category, "prompt": "", "data": json.dumps({})}
    return {
        "messages": messages,
        "rewards": [float(reward) for reward in rewards],
        "terminated": True,
        "category": category,
        "source": "offline",
        "task": task,
        "policy": "",
        "score": float(score),
        "success": success,
        "is_noise": False,
        "noise_kind": "",
        **columns,
    }


def offline_dialogues(
    env: TwentyQuestions | World,
    n: int,
    seed: int = 0,
    mix: Mapping[str, float] | None = None,
    categories: Sequence[str] | None = None,
) -> Dataset:
    """Dialogues of scripted players of different quality.

    Row i depends on `seed` and i alone, not on `n`; no global random state is read or changed.

    Args:
        env (`TwentyQuestions` or `World`): the game that is played.
        n (`int`): number of dialogues.
        seed (`int`, *optional*, defaults to `0`): which dialogues.
        mix (`Mapping[str, float]`, *optional*): player (a key of `PLAYERS`) -> share; `DEFAULT_MIX` unless given.
        categories (`Sequence[str]`, *optional*):
            The categories of the items that are guessed, and the only ones that the enumerator knows; all unless given.

    Returns:
        `datasets.Dataset` in the trajectory format, with `policy`, `score`, `success`, `is_noise` and `noise_kind`.

    Raises:
        ValueError: for an unknown player or category.
    """
    env = TwentyQuestions(world=env) if isinstance(env, World) else env
    mix = DEFAULT_MIX if mix is None else mix
    if unknown := sorted(set(mix) - set(PLAYERS)):
        raise ValueError(f"unknown players {unknown} in `mix`; known: {', '.join(PLAYERS)}")
    names, shares = list(mix), list(mix.values())
    tasks = env.tasks(categories)
    # Narrow knowledge is what fails on other categories: the enumerator knows the categories that it was seen in.
    players = PLAYERS | {"enumerator": Enumerator(None if categories is None else tuple(categories))}

    def rows():
        for index in range(n):
            rng = random.Random(f"offline {seed} {index}")
            name = rng.choices(names, shares)[0]
            yield play(env, players[name], sample(tasks, rng).id, rng, policy=name)

    return Dataset.from_list(list(rows()), features=FEATURES)


class ScriptedPolicy:
    """A scripted player as a rollout policy: `policy(conversations) -> replies`.

    Its random choices depend on `seed` and on the conversation, so that equal conversations get equal replies.

    Args:
        world (`World`): the world that the player believes in.
        player (`Callable` or `str`): a player or its name in `PLAYERS`.
        seed (`int`, *optional*, defaults to `0`): the player's randomness.
    """

    def __init__(self, world: World, player: Player | str = "expert", seed: int = 0):
        self.world = world
        self.player = PLAYERS[player] if isinstance(player, str) else player
        self.seed = seed

    def __call__(self, conversations: list[list[dict[str, str]]]) -> list[str]:
        return [self._reply([m for m in messages if m["role"] != "system"]) for messages in conversations]

    def _reply(self, messages: list[dict[str, str]]) -> str:
        opening = messages[0]["content"]
        category = next((c for c in self.world.categories if self.world.observation(c) == opening), None)
        beliefs = Beliefs(self.world, category)
        for question, answer in zip(messages[1::2], messages[2::2]):
            beliefs.hear(question["content"], answer["content"])
        return self.player(beliefs, random.Random(f"{self.seed} {messages}"))
