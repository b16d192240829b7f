"""Planted noise of known kind: dialogues that look like the pool's but teach the wrong thing."""

import random
from collections.abc import Callable, Mapping
from typing import Any, Literal

from datasets import Dataset

from boost_trl.environments.base import Task, opening_messages
from boost_trl.environments.planted_noise import check_noise, plant_noise
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import FEATURES, make_row, play_episode
from boost_trl.environments.twenty_questions.reward import score, step_reward, terminal_reward
from boost_trl.environments.twenty_questions.scripted_policies import (
    DEFAULT_MIX,
    STRATEGIES,
    Beliefs,
    random_question,
)
from boost_trl.environments.twenty_questions.world import World, sample


NoiseMaker = Callable[[TwentyQuestions, str, random.Random], dict[str, Any]]
WEAK_MIX = {"blind_guesser": 0.4, "random": 0.3, "confused_expert": 0.3}


def add_noise(
    dataset: Dataset,
    env: TwentyQuestions | World,
    kind: Literal["diverse", "stale", "bot", "weak"] = "diverse",
    share: float = 0.6,
    seed: int = 0,
) -> Dataset:
    r"""Replace rows of a pool by planted noise, so that `share` of the rows is noise.

    A replaced row keeps its place and its task, so that categories and splits are those of the clean pool.

    - `"diverse"`, a quarter each: `garbage` (any known words, made-up answers), `wrong_world` (the pool's policies in a world
      of its own facts, another one for every row), `faked_success` (a blind guesser whose third guess is said to be
      right), `hot_self_play` (both sides make it up until a guess is answered yes). Scattered: the good action stays
      the most frequent one.
    - `"stale"`: logs of the same policies in one world whose facts have changed since. Coherent.
    - `"bot"`: one scripted bot that repeats a guess and claims success after a few turns. Coherent.
    - `"weak"`: logs of weaker policies in this world (`WEAK_MIX`); nothing in them is false.

    Args:
        dataset (`Dataset`): rows of [`offline_trajectories`].
        env (`TwentyQuestions` or `World`): the game that the rows are from.
        kind (`str`, *optional*, defaults to `"diverse"`): which noise.
        share (`float`, *optional*, defaults to 0.6): share of the resulting rows, in [0, 1].
        seed (`int`, *optional*, defaults to `0`): which rows, and what they become.

    Returns:
        `Dataset`: as many rows as before, with `is_noise` and `noise_kind` set.

    Raises:
        ValueError: for an unknown kind or a share outside [0, 1].
    """
    check_noise(kind, share)
    env = TwentyQuestions(world=env) if isinstance(env, World) else env
    makers = _makers(env, kind, seed)
    rows = dataset.to_list()

    def make(row, rng):
        name = sample(list(makers), rng) if kind == "diverse" else kind
        return name, makers[name](env, row["task"]["id"], rng)

    plant_noise(rows, kind, share, seed, make)
    return Dataset.from_list(rows, features=FEATURES)


def _makers(env: TwentyQuestions, kind: str, seed: int) -> dict[str, NoiseMaker]:
    if kind == "stale":
        stale = _with_world(env, env.world.with_changed_facts(seed))
        return {"stale": lambda env, task_id, rng: _mixed_play(stale, task_id, rng)}
    if kind == "bot":
        return {"bot": _bot}
    if kind == "weak":
        return {"weak": lambda env, task_id, rng: _mixed_play(env, task_id, rng, WEAK_MIX)}
    return {
        "garbage": _garbage,
        "wrong_world": _wrong_world,
        "faked_success": _faked_success,
        "hot_self_play": _hot_self_play,
    }


def _with_world(env: TwentyQuestions, world: World) -> TwentyQuestions:
    return TwentyQuestions(world=world, max_questions=env.max_steps, reward=env.reward)


def _mixed_play(
    env: TwentyQuestions, task_id: str, rng: random.Random, mix: Mapping[str, float] = DEFAULT_MIX
) -> dict[str, Any]:
    name = rng.choices(list(mix), list(mix.values()))[0]
    return play_episode(env, STRATEGIES[name], task_id, rng, policy=name)


def _claimed(
    env: TwentyQuestions, task_id: str, turns: list[tuple[str, str]], success: bool, policy: str
) -> dict[str, Any]:
    """A row of made-up turns (question, answer); the rewards are what the text claims."""
    observation, info = env.reset(task=task_id)
    messages = opening_messages(env, observation)
    for question, answer in turns:
        messages += [{"role": "assistant", "content": question}, {"role": "user", "content": answer}]
    steps, task = len(turns), Task(task_id, info["category"])
    rewards = [step_reward(env.reward)] * (steps - 1) + [terminal_reward(env.reward, steps, success, env.max_steps)]
    return make_row(task, messages[:-1], rewards, score(steps, success, env.max_steps), success, policy)


def _bot(env: TwentyQuestions, task_id: str, rng: random.Random) -> dict[str, Any]:
    world = env.world
    category = world.items[world.index_of[task_id]].category
    guess = world.items[sample(world.candidates(category), rng)].guess
    turns = [(guess, world.no)] * rng.randint(1, 3) + [(guess, world.yes)]
    return _claimed(env, task_id, turns, True, "bot")


def _garbage(env: TwentyQuestions, task_id: str, rng: random.Random) -> dict[str, Any]:
    world = env.world
    words = [word for item in world.items for word in item.guess.split()]
    words += [word for question in world.questions for word in question.text.split()]
    turns = [
        (
            " ".join(rng.choices(words, k=rng.randint(1, 4))),
            world.reply(sample(world.questions, rng).text, rng.random() < 0.5),
        )
        for _ in range(rng.randint(1, env.max_steps))
    ]
    return _claimed(env, task_id, turns, len(turns) < env.max_steps, "garbage")


def _wrong_world(env: TwentyQuestions, task_id: str, rng: random.Random) -> dict[str, Any]:
    return _mixed_play(_with_world(env, env.world.with_changed_facts(rng.getrandbits(32))), task_id, rng)


def _faked_success(env: TwentyQuestions, task_id: str, rng: random.Random) -> dict[str, Any]:
    world = env.world
    guesses = rng.sample(list(world.candidates(world.items[world.index_of[task_id]].category)), k=3)
    turns = [(world.items[index].guess, world.no) for index in guesses[:-1]]
    turns.append((world.items[guesses[-1]].guess, world.yes))
    return _claimed(env, task_id, turns, True, "blind_guesser")


def _hot_self_play(env: TwentyQuestions, task_id: str, rng: random.Random) -> dict[str, Any]:
    world = env.world
    beliefs = Beliefs(world, world.items[world.index_of[task_id]].category)
    turns, success = [], False
    while not success and len(turns) < env.max_steps:
        question = random_question(beliefs, rng)
        is_guess = bool(world.read(question)[1])
        is_yes = rng.random() < (0.25 if is_guess else 0.5)
        turns.append((question, world.reply(question, is_yes)))
        success = is_guess and is_yes
    return _claimed(env, task_id, turns, success, "self_play")
