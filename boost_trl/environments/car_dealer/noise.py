"""Planted noise of known kind: dialogues that look like the pool's but teach the wrong thing."""

import random
from collections.abc import Callable
from typing import Any, Literal

from datasets import Dataset

from ..base import Task, opening_messages
from ..planted_noise import check_noise, plant_noise
from .bargaining import Move, Reply
from .environment import CarDealer
from .language import Phrasing, understand
from .market import BRANDS, SEGMENTS, Buyer
from .market import FEATURES as CAR_FEATURES
from .offline_data import FEATURES, make_row, play_episode
from .reward import score, step_reward, terminal_reward
from .scripted_policies import DEFAULT_MIX, ScriptedPolicy


NoiseMaker = Callable[[CarDealer, Task, random.Random], dict[str, Any]]
WEAK_MIX = {"quick_discounter": 0.35, "stubborn": 0.25, "rambler": 0.25, "noise": 0.15}
DIVERSE_KINDS = ("garbage", "wrong_world", "faked_success", "hot_self_play")


def add_noise(
    dataset: Dataset,
    env: CarDealer,
    kind: Literal["diverse", "stale", "bot", "weak"] = "diverse",
    share: float = 0.6,
    seed: int = 0,
) -> Dataset:
    """Replace rows of a pool by planted noise, so that `share` of the rows is noise.

    A replaced row keeps its place, its category and its task's id, so that splits are those of the clean pool.

    - `"diverse"`, a quarter each: `garbage` (any words on both sides), `wrong_world` (the pool's policies in another
      market for every row), `faked_success` (a rambler whose third turn is said to sell), `hot_self_play` (both sides
      make it up). Scattered: the good action stays the most frequent one.
    - `"stale"`: logs of the same policies in one market whose facts have changed since: the segments' ways of
      bargaining have moved on by one. Coherent.
    - `"bot"`: one scripted bot that repeats the minimum price and claims a sale after a few turns. Coherent.
    - `"weak"`: logs of weaker policies in this market (`WEAK_MIX`); nothing in them is false.

    Args:
        dataset (`Dataset`): rows of [`offline_trajectories`].
        env (`CarDealer`): the game that the rows are from.
        kind (`str`, *optional*, defaults to `"diverse"`): which noise.
        share (`float`, *optional*, defaults to 0.6): share of the resulting rows, in [0, 1].
        seed (`int`, *optional*, defaults to `0`): which rows, and what they become.

    Returns:
        `Dataset`: as many rows as before, with `is_noise` and `noise_kind` set.

    Raises:
        ValueError: for an unknown kind, a share outside [0, 1], or rows that are not from a game like `env`.
    """
    check_noise(kind, share)
    rows = dataset.to_list()
    for task in dataset["task"]:
        if (task["data"]["sticker"] == 100) != (env.world == "small"):
            raise ValueError(f"task {task['id']!r} was made for the other world; that of `env` is {env.world!r}")

    def make(row, rng):
        name = rng.choice(DIVERSE_KINDS) if kind == "diverse" else kind
        return name, _MAKERS[name](env, Task(**row["task"]), rng)

    plant_noise(rows, kind, share, seed, make)
    return Dataset.from_list(rows, features=FEATURES)


def _in_market(env: CarDealer, task: Task, rng: random.Random, shift: int) -> dict[str, Any]:
    other = env.with_changed_market(shift)
    name = rng.choices(list(DEFAULT_MIX), list(DEFAULT_MIX.values()))[0]
    seed = rng.getrandbits(31)
    # The id names the same customer, whose character is the other market's.
    known = {candidate.id: candidate for candidate in other.tasks([task.category])}
    if task.id not in known:
        raise ValueError(
            f"`env` has no buyer {task.id!r}, of whom the pool has a row: it has {len(known)} for each brand; give "
            "`CarDealer` the `buyers_per_brand` that the pool was made with"
        )
    task = known[task.id]
    return play_episode(other, ScriptedPolicy(other, name, seed, slips=0.05), task, seed)


def _stale(env: CarDealer, task: Task, rng: random.Random) -> dict[str, Any]:
    return _in_market(env, task, rng, 1)


def _wrong_world(env: CarDealer, task: Task, rng: random.Random) -> dict[str, Any]:
    return _in_market(env, task, rng, rng.randrange(1, len(SEGMENTS)))


def _weak(env: CarDealer, task: Task, rng: random.Random) -> dict[str, Any]:
    name, seed = rng.choices(list(WEAK_MIX), list(WEAK_MIX.values()))[0], rng.getrandbits(31)
    return play_episode(env, ScriptedPolicy(env, name, seed, slips=0.05), task, seed)


def _bot(env: CarDealer, task: Task, rng: random.Random) -> dict[str, Any]:
    buyer, phrasing = Buyer.from_dict(task.data), Phrasing(env.world, rng)
    # Its counter-offers are to the dollar, unlike the pool's: published pools of this kind are not to change.
    turns = [
        (phrasing.utterance(Move(price=buyer.floor)), phrasing.reply(buyer, _counter(buyer, rng)))
        for _ in range(rng.randint(2, 3))
    ]
    return _claimed(env, task, turns, True, "bot")


def _garbage(env: CarDealer, task: Task, rng: random.Random) -> dict[str, Any]:
    words = [*CAR_FEATURES, *(brand.lower() for brand in BRANDS), "price", "want", "nice", "deal", "no", "?"]

    def babble() -> str:
        return " ".join(rng.choices(words, k=rng.randint(1, 5)))

    turns = [(babble(), babble()) for _ in range(rng.randint(1, min(8, env.max_steps)))]
    return _claimed(env, task, turns, rng.random() < 0.5, "garbage")


def _faked_success(env: CarDealer, task: Task, rng: random.Random) -> dict[str, Any]:
    buyer, phrasing, unit = Buyer.from_dict(task.data), Phrasing(env.world, rng), _unit(env)
    turns = []
    for _ in range(3):
        features = tuple(rng.sample(CAR_FEATURES, 2))
        move = Move(features=features, price=_price(rng, buyer.floor, buyer.sticker, unit))
        turns.append((phrasing.utterance(move), phrasing.reply(buyer, _counter(buyer, rng, unit))))
    return _claimed(env, task, turns, True, "rambler")


def _hot_self_play(env: CarDealer, task: Task, rng: random.Random) -> dict[str, Any]:
    buyer, phrasing, unit = Buyer.from_dict(task.data), Phrasing(env.world, rng), _unit(env)
    turns, success, left = [], False, False
    while not success and not left and len(turns) < env.max_steps:
        move = Move(
            features=tuple(rng.sample(CAR_FEATURES, rng.randint(0, 2))),
            asks=rng.random() < 0.3,
            price=_price(rng, buyer.floor, buyer.sticker, unit),
        )
        turns.append((phrasing.utterance(move), phrasing.reply(buyer, _counter(buyer, rng, unit))))
        success, left = rng.random() < 0.25, rng.random() < 0.1
    return _claimed(env, task, turns, success, "self_play")


def _unit(env: CarDealer) -> int:
    """Unit that the pool's prices are rounded to: other prices would tell the noise."""
    return 100 if env.world == "full" else 1


def _price(rng: random.Random, low: int, high: int, unit: int) -> int:
    return unit * rng.randint(low // unit, high // unit)


def _counter(buyer: Buyer, rng: random.Random, unit: int = 1) -> Reply:
    acts = rng.choice((("counter",), ("pleased", "counter"), ("wary", "counter")))
    return Reply(acts, _price(rng, buyer.sticker * 7 // 10, buyer.floor, unit))


def _claimed(env: CarDealer, task: Task, turns: list[tuple[str, str]], success: bool, policy: str) -> dict[str, Any]:
    """A row of made-up turns (utterance, answer); the rewards are what the text claims."""
    observation, _ = env.reset(seed=0, task=task)
    messages = opening_messages(env, observation)
    for utterance, answer in turns:
        messages += [{"role": "assistant", "content": utterance}, {"role": "user", "content": answer}]
    buyer, steps = Buyer.from_dict(task.data), len(turns)
    price = (understand(turns[-1][0], env.world).price or buyer.floor) if success else None
    rewards = [step_reward(env.reward)] * steps
    rewards[-1] = terminal_reward(
        env.reward,
        steps,
        price,
        sticker=buyer.sticker,
        budget=buyer.budget,
        max_utterances=env.max_utterances,
    )
    price_ratio = 0.0 if price is None else price / buyer.sticker
    earned = score(steps, price, env.max_utterances)
    return make_row(task, messages[:-1], rewards, earned, success, policy, price_ratio)


_MAKERS: dict[str, NoiseMaker] = {
    "stale": _stale,
    "bot": _bot,
    "weak": _weak,
    "garbage": _garbage,
    "wrong_world": _wrong_world,
    "faked_success": _faked_success,
    "hot_self_play": _hot_self_play,
}
