"""Offline dialogues of scripted policies of mixed quality, in the trajectory format."""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value

from boost_trl.environments.base import Task, opening_messages
from boost_trl.environments.policy_mix import check_mix
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.scripted_policies import (
    DEFAULT_MIX,
    STRATEGIES,
    Beliefs,
    Enumerator,
    Strategy,
)
from boost_trl.environments.twenty_questions.world import World, sample


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


def play_episode(
    env: TwentyQuestions, strategy: Strategy, task: Task | str, rng: random.Random, policy: str = ""
) -> dict[str, Any]:
    """One game of a scripted policy, as a row of `FEATURES`.

    The final answer is not part of the row: the last action ends the episode.

    Args:
        env (`TwentyQuestions`): the game.
        strategy (`Callable[[Beliefs, random.Random], str]`): the policy, which knows the facts of `env.world`.
        task (`Task` or `str`): the item to be guessed, or its id.
        rng (`random.Random`): the policy's randomness.
        policy (`str`, *optional*): the policy's name, for the column of that name.
    """
    observation, info = env.reset(task=task)
    beliefs = Beliefs(env.world, info["category"])
    messages, rewards, terminated = opening_messages(env, observation), [], False
    while not terminated:
        action = _reworded(env.world, strategy(beliefs, rng), rng)
        observation, reward, terminated, _, info = env.step(action)
        beliefs.hear(action, observation)
        messages += [{"role": "assistant", "content": action}, {"role": "user", "content": observation}]
        rewards.append(reward)
    task = Task(info["task_id"], info["category"])
    return make_row(task, messages[:-1], rewards, info["score"], info["success"], policy)


def _reworded(world: World, action: str, rng: random.Random) -> str:
    """Now and then another wording of the same question, where the world has one: people do not speak from a list."""
    question, _ = world.read(action)
    if question is not None and world.questions[question].paraphrases and rng.random() < PARAPHRASED_SHARE:
        return sample(world.questions[question].paraphrases, rng)
    return action


def make_row(
    task: Task, messages: list[dict[str, str]], rewards: Sequence[float], score: float, success: bool, policy: str
) -> dict[str, Any]:
    """A row of `FEATURES`, not marked as noise."""
    return {
        "messages": messages,
        "rewards": [float(reward) for reward in rewards],
        "terminated": True,
        "category": task.category,
        "source": "offline",
        "task": task.to_dict() | {"data": json.dumps(task.data)},
        "policy": policy,
        "score": float(score),
        "success": success,
        "is_noise": False,
        "noise_kind": "",
    }


def offline_trajectories(
    env: TwentyQuestions | World,
    n: int,
    seed: int = 0,
    mix: Mapping[str, float] | None = None,
    categories: Sequence[str] | None = None,
) -> Dataset:
    """Dialogues of scripted policies of mixed quality.

    Row i depends on `seed` and i alone, not on `n`; no global random state is read or changed.

    Args:
        env (`TwentyQuestions` or `World`): the game that is played.
        n (`int`): number of dialogues.
        seed (`int`, *optional*, defaults to `0`): which dialogues.
        mix (`Mapping[str, float]`, *optional*): policy (a key of `STRATEGIES`) -> share; `DEFAULT_MIX` unless given.
        categories (`Sequence[str]`, *optional*): The categories of the items that are guessed, and the only ones that
            the enumerator knows; all unless given.

    Returns:
        `datasets.Dataset` in the trajectory format, with `policy`, `score`, `success`, `is_noise` and `noise_kind`.

    Raises:
        ValueError: for an unknown policy or category, shares that are negative or all zero, or `n` below 1.
    """
    env = TwentyQuestions(world=env) if isinstance(env, World) else env
    mix = DEFAULT_MIX if mix is None else mix
    check_mix(mix, STRATEGIES, n)
    names, shares = list(mix), list(mix.values())
    tasks = env.tasks(categories)
    # Narrow knowledge is what fails on other categories: the enumerator knows the categories that it was seen in.
    strategies = STRATEGIES | {"enumerator": Enumerator(None if categories is None else tuple(categories))}

    def rows():
        for index in range(n):
            rng = random.Random(f"offline {seed} {index}")
            name = rng.choices(names, shares)[0]
            yield play_episode(env, strategies[name], sample(tasks, rng), rng, policy=name)

    return Dataset.from_list(list(rows()), features=FEATURES)
