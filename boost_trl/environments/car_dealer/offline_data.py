"""Offline dialogues of scripted policies of mixed quality, in the trajectory format."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value

from ..base import Task, opening_messages
from ..policy_mix import check_mix
from .environment import CarDealer
from .scripted_policies import DEFAULT_MIX, STRATEGIES, ScriptedPolicy


_TEXT, _NUMBER, _WHOLE, _FLAG = (Value(kind) for kind in ("string", "float64", "int64", "bool"))
FEATURES = Features(
    {
        "messages": List({"role": _TEXT, "content": _TEXT}),
        "rewards": List(_NUMBER),
        "terminated": _FLAG,
        "category": _TEXT,
        "source": _TEXT,
        "task": {
            "id": _TEXT,
            "category": _TEXT,
            "prompt": _TEXT,
            "data": {
                **dict.fromkeys(("brand", "model", "personality"), _TEXT),
                **{name: List(_TEXT) for name in ("wanted", "equipment")},
                **dict.fromkeys(("sticker", "floor", "budget", "reservation", "patience"), _WHOLE),
            },
        },
        "policy": _TEXT,
        "score": _NUMBER,
        "success": _FLAG,
        "price_ratio": _NUMBER,
        "is_noise": _FLAG,
        "noise_kind": _TEXT,
    }
)


def converse(
    env: CarDealer, policy: ScriptedPolicy, task: Task, seed: int
) -> tuple[list[dict[str, str]], list[float], dict[str, Any]]:
    """One whole dialogue: messages with the buyer's final words, rewards, the last step's info."""
    observation, info = env.reset(seed=seed, task=task)
    messages, rewards, over = opening_messages(env, observation), [], False
    while not over:
        action = policy([messages])[0]
        observation, reward, over, _, info = env.step(action)
        messages += [{"role": "assistant", "content": action}, {"role": "user", "content": observation}]
        rewards.append(reward)
    return messages, rewards, info


def play_episode(env: CarDealer, policy: ScriptedPolicy, task: Task, seed: int) -> dict[str, Any]:
    """One dialogue of a scripted policy, as a row of `FEATURES`. The buyer's final words are not part of it."""
    messages, rewards, info = converse(env, policy, task, seed)
    return make_row(task, messages[:-1], rewards, info["score"], info["success"], policy.strategy, info["price_ratio"])


def make_row(
    task: Task,
    messages: list[dict[str, str]],
    rewards: Sequence[float],
    score: float,
    success: bool,
    policy: str,
    price_ratio: float,
) -> dict[str, Any]:
    """A row of `FEATURES`, not marked as noise."""
    return {
        "messages": messages,
        "rewards": rewards,
        "terminated": True,
        "category": task.category,
        "source": "offline",
        "task": task.to_dict(),
        "policy": policy,
        "score": score,
        "success": success,
        "price_ratio": price_ratio,
        "is_noise": False,
        "noise_kind": "",
    }


def offline_trajectories(
    env: CarDealer,
    n: int = 4400,
    seed: int = 0,
    mix: Mapping[str, float] | None = None,
    categories: Sequence[str] | None = None,
    slips: float = 0.05,
) -> Dataset:
    """Dialogues of scripted policies of mixed quality with the environment's buyers.

    Row i depends on `seed` and i alone, not on `n`; no global random state is read or changed.

    Args:
        env (`CarDealer`): with the rule-based buyer, if the rows are to be the same everywhere.
        n (`int`, *optional*, defaults to `4400`): number of dialogues, the paper's by default.
        seed (`int`, *optional*, defaults to `0`): which dialogues.
        mix (`Mapping[str, float]`, *optional*): policy (a key of `STRATEGIES`) -> share; `DEFAULT_MIX` unless given.
        categories (`Sequence[str]`, *optional*): the brands that are sold; all unless given.
        slips (`float`, *optional*, defaults to `0.05`): probability that a turn of any policy is noise.

    Returns:
        `datasets.Dataset` in the trajectory format, with `policy`, `score`, `success`, `price_ratio`, `is_noise` and
        `noise_kind`.

    Raises:
        ValueError: for an unknown policy or brand, shares that are negative or all zero, `n` below 1, or `slips` that
            is no probability.
    """
    mix = DEFAULT_MIX if mix is None else mix
    check_mix(mix, STRATEGIES, n)
    tasks = env.tasks(categories)

    def rows():
        for index in range(n):
            rng = random.Random(f"car_dealer dialogues {seed} {index}")
            name = rng.choices(list(mix), list(mix.values()))[0]
            task, game_seed = rng.choice(tasks), rng.getrandbits(31)
            yield play_episode(env, ScriptedPolicy(env, name, game_seed, slips), task, game_seed)

    return Dataset.from_list(list(rows()), features=FEATURES)
