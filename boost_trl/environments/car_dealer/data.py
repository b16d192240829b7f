"""Offline dialogues of mixed quality, in the trajectory format."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset, Features, List, Value

from ..base import Task
from .environment import CarDealer
from .sellers import SELLERS, ScriptedSeller


# Good dialogues are rare, and most of the mediocre ones come from sellers who are right in one segment only.
DEFAULT_MIX = {
    "expert": 0.10,
    "anchor_high_slow": 0.20,
    "quick_discounter": 0.25,
    "feature_matcher": 0.20,
    "stubborn": 0.10,
    "rambler": 0.10,
    "noise": 0.05,
}
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
    env: CarDealer, seller: ScriptedSeller, task: Task, seed: int
) -> tuple[list[dict[str, str]], list[float], dict[str, Any]]:
    """One whole dialogue: messages with the buyer's final words, rewards, the last step's info."""
    observation, info = env.reset(seed=seed, task=task)
    messages = [{"role": "system", "content": env.system_prompt}] if env.system_prompt else []
    rewards, over = [], False
    while not over:
        messages.append({"role": "user", "content": observation})
        messages.append({"role": "assistant", "content": seller([messages])[0]})
        observation, reward, over, _, info = env.step(messages[-1]["content"])
        rewards.append(reward)
    messages.append({"role": "user", "content": observation})
    return messages, rewards, info


def play(env: CarDealer, seller: ScriptedSeller, task: Task, seed: int) -> dict[str, Any]:
    """One dialogue of a scripted seller, as a row of `FEATURES`. The buyer's final words are not part of it."""
    messages, rewards, info = converse(env, seller, task, seed)
    return {
        "messages": messages[:-1],
        "rewards": rewards,
        "terminated": True,
        "category": task.category,
        "source": "offline",
        "task": task.to_dict(),
        "policy": seller.name,
        "score": info["score"],
        "success": info["success"],
        "price_ratio": info["price_ratio"],
        "is_noise": False,
        "noise_kind": "",
    }


def offline_dialogues(
    env: CarDealer,
    n: int = 4400,
    seed: int = 0,
    mix: Mapping[str, float] | None = None,
    categories: Sequence[str] | None = None,
    slips: float = 0.05,
) -> Dataset:
    """Dialogues of scripted sellers with the environment's buyers.

    Row i depends on `seed` and i alone, not on `n`; no global random state is read or changed.

    Args:
        env (`CarDealer`): with the rule-based buyer, if the rows are to be the same everywhere.
        n (`int`, *optional*, defaults to `4400`): number of dialogues, the paper's by default.
        seed (`int`, *optional*, defaults to `0`): which dialogues.
        mix (`Mapping[str, float]`, *optional*): seller (a key of `SELLERS`) -> share; `DEFAULT_MIX` unless given.
        categories (`Sequence[str]`, *optional*): the brands that are sold; all unless given.
        slips (`float`, *optional*, defaults to `0.05`): probability that a turn of any seller is noise.

    Returns:
        `datasets.Dataset` in the trajectory format, with `policy`, `score`, `success`, `price_ratio`, `is_noise` and
        `noise_kind`.

    Raises:
        ValueError: for an unknown seller or brand, shares that are negative or all zero, `n` below 1, or `slips` that
            is no probability.
    """
    mix = DEFAULT_MIX if mix is None else mix
    unknown = [name for name in mix if name not in SELLERS]
    if unknown:
        raise ValueError(f"`mix` names unknown sellers {unknown}; there are {', '.join(SELLERS)}")
    if min(mix.values(), default=0) < 0 or sum(mix.values()) <= 0:
        raise ValueError(f"`mix` needs shares of at least 0 and not all 0, not {dict(mix)}")
    if n < 1:
        raise ValueError(f"`n` is {n}; give at least 1 dialogue")
    tasks = env.tasks(categories)

    def rows():
        for index in range(n):
            rng = random.Random(f"car_dealer dialogues {seed} {index}")
            name = rng.choices(list(mix), list(mix.values()))[0]
            task, game_seed = rng.choice(tasks), rng.getrandbits(31)
            yield play(env, ScriptedSeller(name, env.world, game_seed, slips), task, game_seed)

    return Dataset.from_list(list(rows()), features=FEATURES)
