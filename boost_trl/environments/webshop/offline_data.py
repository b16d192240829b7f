"""Offline episodes of scripted policies of mixed quality, in the trajectory format."""

import warnings
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from ..base import Task, opening_messages
from ..policy_mix import check_mix
from .environment import WebShop
from .scripted_policies import DEFAULT_MIX, STRATEGIES, Strategy


if TYPE_CHECKING:
    import datasets


def play_episode(env: WebShop, strategy: type[Strategy], task: Task, rng: Random, policy: str = "") -> dict[str, Any]:
    """One episode of a scripted policy as a trajectory row; `policy` is its name, for the column of that name."""
    observation, info = env.reset(task=task)
    messages = opening_messages(env, observation)
    player = strategy(env, rng)
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        action = player.act()
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
    """Episodes of scripted policies of mixed quality.

    Every task is played before one is played again, so that categories are as frequent as they are among the tasks.

    Args:
        env (`WebShop`): the shop.
        n (`int`, *optional*, defaults to 2000): episodes.
        seed (`int`, *optional*, defaults to 0): everything follows from it.
        mix (`Mapping[str, float]`, *optional*): policy (a key of `STRATEGIES`) -> share; `DEFAULT_MIX` unless given.
            Shares are scaled to sum to one.

    Returns:
        `datasets.Dataset`: trajectory rows with `policy`, `score` and `success`.

    Raises:
        ValueError: for an unknown policy, shares that are negative or all zero, or `n` below 1.
    """
    import datasets

    mix = DEFAULT_MIX if mix is None else mix
    if "oracle" in mix:
        warnings.warn("the policy `oracle` is now called `privileged_expert`", FutureWarning, stacklevel=2)
        mix = {"privileged_expert" if name == "oracle" else name: share for name, share in mix.items()}
    check_mix(mix, STRATEGIES, n)
    rng = Random(f"webshop offline {seed}")
    tasks = env.tasks()
    order: list = []
    while len(order) < n:
        order += rng.sample(tasks, len(tasks))
    names = rng.choices(list(mix), weights=list(mix.values()), k=n)
    rows = [play_episode(env, STRATEGIES[name], task, rng, policy=name) for name, task in zip(names, order)]
    return datasets.Dataset.from_list(rows)
