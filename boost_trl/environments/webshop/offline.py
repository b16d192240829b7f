"""Offline data: episodes of scripted shoppers as trajectory rows."""

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from ..base import Task
from .environment import WebShop
from .players import DEFAULT_MIX, PLAYERS, Shopper


if TYPE_CHECKING:
    import datasets


def play_episode(env: WebShop, player: type[Shopper], task: Task, rng: Random, policy: str) -> dict[str, Any]:
    """One episode of a scripted shopper as a trajectory row; `policy` is what the row calls the shopper."""
    observation, info = env.reset(task=task)
    messages = [{"role": "system", "content": env.system_prompt}] if env.system_prompt else []
    messages.append({"role": "user", "content": observation})
    shopper = player(env, rng)
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        action = shopper.act()
        observation, reward, terminated, truncated, info = env.step(action)
        messages += [{"role": "assistant", "content": action}, {"role": "user", "content": observation}]
        rewards.append(reward)
    if terminated:
        messages.pop()
    return {
        "messages": messages,
        "rewards": rewards,
        "terminated": terminated,
        "category": info["category"],
        "source": "offline",
        "task": task.to_dict(),
        "policy": policy,
        "score": info["score"],
        "success": info["success"],
        "is_noise": False,
        "noise_kind": "",
    }


def offline_trajectories(
    env: WebShop, n: int = 2000, seed: int = 0, mix: Mapping[str, float] | None = None
) -> "datasets.Dataset":
    """
    Let scripted shoppers of mixed quality play.

    Every task is played before one is played again, so that categories are as frequent as they are among the tasks.

    Args:
        env (`WebShop`): the shop.
        n (`int`, *optional*, defaults to 2000): episodes.
        seed (`int`, *optional*, defaults to 0): everything follows from it.
        mix (`dict`, *optional*): shopper to share, of "oracle", "expert", "hasty", "wanderer", "wrong_option",
            "wrong_item", "random", "broken"; shares are scaled to sum to one.

    Returns:
        `datasets.Dataset`: trajectory rows with `policy` (the shopper), `score` and `success`.

    Raises:
        ValueError: if a shopper is unknown, a share negative, or nothing is left.
    """
    import datasets

    mix = DEFAULT_MIX if mix is None else mix
    unknown = sorted(set(mix) - set(PLAYERS))
    if unknown:
        raise ValueError(f"no shopper is called {unknown[0]!r}; known: {', '.join(PLAYERS)}")
    if n < 1 or min(mix.values(), default=0) < 0 or not sum(mix.values()):
        raise ValueError(
            f"n must be positive and the shares of mix at least 0, some above; got n={n}, mix={dict(mix)}"
        )
    rng = Random(f"webshop offline {seed}")
    tasks = env.tasks()
    order: list = []
    while len(order) < n:
        order += rng.sample(tasks, len(tasks))
    players = rng.choices(list(mix), weights=list(mix.values()), k=n)
    rows = [play_episode(env, PLAYERS[player], task, rng, player) for player, task in zip(players, order)]
    return datasets.Dataset.from_list(rows)
