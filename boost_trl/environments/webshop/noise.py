"""Planted noise of known kind: episodes that look like the pool's but teach the wrong thing."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from ..base import Task, opening_messages
from ..planted_noise import check_noise, plant_noise
from .catalogue import Catalogue
from .environment import WebShop
from .offline_data import play_episode
from .reward import terminal_reward
from .scripted_policies import DEFAULT_MIX, STRATEGIES, Strategy


if TYPE_CHECKING:
    import datasets

NoiseMaker = Callable[[Task, Random], dict[str, Any]]
WEAK_MIX = {"hasty": 0.3, "wrong_option": 0.3, "wrong_item": 0.2, "random": 0.2}


def add_noise(
    dataset: "datasets.Dataset",
    env: WebShop,
    kind: Literal["diverse", "stale", "bot", "weak"] = "diverse",
    share: float = 0.6,
    seed: int = 0,
) -> "datasets.Dataset":
    """Replace rows of a pool by planted noise, so that `share` of the rows is noise.

    A replaced row keeps its place and its task, so that categories and splits are those of the clean pool.

    - `"diverse"`, a quarter each: `garbage` (any words on both sides), `wrong_world` (the pool's policies in a shop with
      other names for things, another one for every row), `faked_success` (any product, said to be right),
      `hot_self_play` (random clicks on pages of another customer). Scattered: the good action stays the most frequent.
    - `"stale"`: logs of the same policies in one shop whose attributes and options have been renamed since. Coherent.
    - `"bot"`: one scripted bot that searches for two words, buys the first result as it is and claims the full score.
      Coherent.
    - `"weak"`: logs of weaker policies in this shop (`WEAK_MIX`); nothing in them is false.

    Args:
        dataset (`Dataset`): rows of [`offline_trajectories`].
        env (`WebShop`): the shop that the rows are from.
        kind (`str`, *optional*, defaults to `"diverse"`): which noise.
        share (`float`, *optional*, defaults to 0.6): share of the resulting rows, in [0, 1].
        seed (`int`, *optional*, defaults to `0`): which rows, and what they become.

    Returns:
        `Dataset`: as many rows as before, with `is_noise` and `noise_kind` set.

    Raises:
        ValueError: for an unknown kind or a share outside [0, 1].
    """
    import datasets

    check_noise(kind, share)
    makers = _makers(env, kind)
    rows = [row | {"is_noise": False, "noise_kind": ""} for row in dataset]

    def make(row, rng):
        name = rng.choice(list(makers))
        return name, row | makers[name](env.catalogue.tasks_by_id[row["task"]["id"]], rng)

    plant_noise(rows, kind, share, seed, make)
    return datasets.Dataset.from_list(rows)


class FirstHitBot(Strategy):
    """Searches for two words of the request and buys the first result as it is."""

    def play(self):
        yield f"search[{self.short_query(2)}]"
        if self.products():
            yield f"click[{self.products()[0][0]}]"


def renamed_catalogue(catalogue: Catalogue, shift: int = 1) -> Catalogue:
    """The same shop in other words: attributes, and the values of each option, trade names in a circle.

    Requests change with the products, so who knows the words shops there as well as here.

    Args:
        catalogue (`Catalogue`): the shop.
        shift (`int`, *optional*, defaults to 1): places that a name moves among the sorted names of its kind.
    """
    groups: dict[str, set[str]] = {"": {name for product in catalogue.products for name in product["Attributes"]}}
    for product in catalogue.products:
        for option, values in product["options"].items():
            groups.setdefault(option, set()).update(values)
    renamed: dict[str, str] = {}
    for group in groups.values():
        names = sorted(group - set(renamed))
        renamed |= {name: names[(at + shift) % len(names)] for at, name in enumerate(names)}
    longest_first = "|".join(re.escape(name) for name in sorted(renamed, key=len, reverse=True))
    # "10" is a size, but not in "10.00".
    pattern = re.compile(rf"(?<![\w.])(?:{longest_first})(?!\w|\.\d)", re.IGNORECASE)

    def replace(match: re.Match) -> str:
        new = renamed.get(match[0]) or renamed.get(match[0].lower(), match[0])
        return new.title() if match[0].istitle() else new

    def rename(value):
        if isinstance(value, str):
            return pattern.sub(replace, value)
        if isinstance(value, Mapping):
            return {key: rename(item) for key, item in value.items()}
        return [rename(item) for item in value]

    product_texts = ("name", "Title", "Description", "BulletPoints", "options", "Attributes")
    goal_texts = ("name", "instruction_text", "attributes", "goal_options")
    products = [{**product, **{key: rename(product[key]) for key in product_texts}} for product in catalogue.products]
    goals = [{**goal, **{key: rename(goal[key]) for key in goal_texts}} for goal in catalogue.goals]
    return Catalogue(products, catalogue.prices, goals)


def _makers(env: WebShop, kind: str) -> dict[str, NoiseMaker]:
    @cache
    def renamed_shop(shift: int) -> WebShop:
        return WebShop(
            renamed_catalogue(env.catalogue, shift),
            observation=env.observation_mode,
            max_steps=env.max_steps,
            discount=env.discount,
            max_searches=env.max_searches,
            results_per_page=env.results_per_page,
            nouns=env.nouns,
        )

    def stale(task: Task, rng: Random) -> dict[str, Any]:
        shop = renamed_shop(1)
        return _as_task(task, _mixed_play(shop, shop.catalogue.tasks_by_id[task.id], rng))

    def wrong_world(task: Task, rng: Random) -> dict[str, Any]:
        shop = renamed_shop(rng.randint(1, 5))
        return _as_task(task, _mixed_play(shop, shop.catalogue.tasks_by_id[task.id], rng))

    def bot(task: Task, rng: Random) -> dict[str, Any]:
        return _claim(play_episode(env, FirstHitBot, task, rng, policy="bot"), True, env.discount)

    def weak(task: Task, rng: Random) -> dict[str, Any]:
        return _mixed_play(env, task, rng, WEAK_MIX)

    def faked_success(task: Task, rng: Random) -> dict[str, Any]:
        row = play_episode(env, STRATEGIES["wrong_item"], task, rng, policy="wrong_item")
        return _claim(row, True, env.discount)

    def hot_self_play(task: Task, rng: Random) -> dict[str, Any]:
        other = rng.choice(env.catalogue.tasks)
        row = play_episode(env, STRATEGIES["random"], other, rng, policy="self_play")
        return _claim(_as_task(task, row), rng.random() < 0.25, env.discount)

    def garbage(task: Task, rng: Random) -> dict[str, Any]:
        observation, _ = env.reset(task=task)
        messages = opening_messages(env, observation)
        steps = rng.randint(1, env.max_steps)
        for _ in range(steps):
            verb = rng.choice(("search", "click"))
            messages += [
                {"role": "assistant", "content": env.write_action(verb, _babble(env.catalogue, rng))},
                {"role": "user", "content": _babble(env.catalogue, rng)},
            ]
        row = {"messages": messages[:-1], "rewards": [0.0] * steps, "terminated": True, "policy": "garbage"}
        return _claim(row, rng.random() < 0.5, env.discount)

    if kind == "stale":
        return {"stale": stale}
    if kind == "bot":
        return {"bot": bot}
    if kind == "weak":
        return {"weak": weak}
    return {
        "garbage": garbage,
        "wrong_world": wrong_world,
        "faked_success": faked_success,
        "hot_self_play": hot_self_play,
    }


def _mixed_play(shop: WebShop, task: Task, rng: Random, mix: Mapping[str, float] = DEFAULT_MIX) -> dict[str, Any]:
    name = rng.choices(list(mix), list(mix.values()))[0]
    return play_episode(shop, STRATEGIES[name], task, rng, policy=name)


def _as_task(task: Task, row: dict[str, Any]) -> dict[str, Any]:
    """The row under the request of another task."""
    played = row["task"]["prompt"]
    messages = [
        message | {"content": message["content"].replace(played, task.prompt)}
        if message["role"] == "user"
        else message
        for message in row["messages"]
    ]
    return row | {"messages": messages, "task": task.to_dict(), "category": task.category}


def _claim(row: dict[str, Any], success: bool, discount: float) -> dict[str, Any]:
    """The row as an episode that ended with its last action, worth everything or nothing."""
    messages = row["messages"] if row["messages"][-1]["role"] == "assistant" else row["messages"][:-1]
    steps, score = len(row["rewards"]), float(success)
    rewards = [0.0] * (steps - 1) + [terminal_reward(steps, score, discount)]
    return row | {"messages": messages, "rewards": rewards, "terminated": True, "score": score, "success": success}


def _babble(catalogue: Catalogue, rng: Random) -> str:
    products = rng.choices(catalogue.products, k=2)
    words = [word for product in products for word in (*product["Title"].split(), str(int(product["pricing"][0])))]
    return " ".join(rng.choices(words, k=rng.randint(1, 6)))
