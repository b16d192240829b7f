"""WebShop as an environment: a page machine over a catalogue."""

import json
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from operator import index
from random import Random
from typing import Any, Literal

from ..base import Task
from . import pages
from .cache import load_catalogue
from .catalogue import Catalogue
from .reward import SYNTHETIC_REWARDS, purchase_reward
from .shop import Shop, select_tasks
from .synthetic_rules import WebShopRules
from .text import title_nouns


MAX_HITS = 50


class WebShop(Shop):
    """An online shop: search, look, choose options, buy. Implements [`~boost_trl.environments.Environment`].

    Rewards are 0 until the purchase, which pays `discount**(step - 1) * score` and ends the episode; the score is that
    of [`~boost_trl.environments.webshop.purchase_reward`]. `info` of the last step has `score` (undiscounted; 0 if
    nothing was bought), `discounted_score` and `success` (score 1); that of a purchase `reward_parts`, `asin` and
    `options` as well.

    Args:
        catalogue (`Catalogue` or `str`, *optional*, defaults to `"full"`): what is sold and wanted; `"full"` (10,000
            products in 37 categories) and `"small"` (a toy shop for models trained from scratch) are generated once
            and cached on disk.
        seed (`int`, *optional*): what a generated shop is made from, 0 if omitted; only with a name for `catalogue`.
        observation (`str`, *optional*): `"text_rich"` (the original's, one text per line, buttons marked; default),
            `"text"` (the original's simple mode) or `"compact"` (a few words; products are numbered and clicked by
            number; default for the small shop).
        max_steps (`int`, *optional*): actions until the episode is cut; 15, or 8 in the small shop.
        discount (`float`, *optional*, defaults to 0.99): per step before the purchase.
        max_searches (`int`, *optional*): further searches are no-ops.
        results_per_page (`int`, *optional*): 10, or 3 in the small shop.
        leak_reward (`bool`, *optional*, defaults to `False`): whether the last page shows the score, as the original's.
        nouns (`Callable`, *optional*): title to its nouns, for the reward's product type.
        synthetic_reward (`str`, *optional*, defaults to `"rescore"`): what a purchase in synthetic self-play is worth:
            `"rescore"`, `"claimed"` or `"zero"`, see [`~boost_trl.environments.webshop.synthetic_rules.WebShopRules`].

    Raises:
        ValueError: for an unknown catalogue, observation or synthetic reward, a limit below 1, a `seed` that is no whole
            number or comes with a catalogue that is made already.
    """

    def __init__(
        self,
        catalogue: Catalogue | str = "full",
        *,
        seed: int | None = None,
        observation: Literal["text_rich", "text", "compact"] | None = None,
        max_steps: int | None = None,
        discount: float = 0.99,
        max_searches: int | None = None,
        results_per_page: int | None = None,
        leak_reward: bool = False,
        nouns: Callable[[str], Sequence[str]] = title_nouns,
        synthetic_reward: Literal["rescore", "claimed", "zero"] = "rescore",
    ):
        small = catalogue == "small"
        super().__init__(
            observation=observation or ("compact" if small else "text_rich"),
            max_steps=max_steps if max_steps is not None else (8 if small else 15),
            discount=discount,
            max_searches=max_searches,
            leak_reward=leak_reward,
        )
        self.results_per_page = results_per_page if results_per_page is not None else (3 if small else 10)
        if self.results_per_page < 1:
            raise ValueError(f"`results_per_page` must be at least 1, got {results_per_page}")
        self.catalogue = _open_catalogue(catalogue, seed)
        self.nouns = nouns
        if synthetic_reward not in SYNTHETIC_REWARDS:
            raise ValueError(f"synthetic_reward {synthetic_reward!r} is not one of {', '.join(SYNTHETIC_REWARDS)}")
        self.synthetic_reward = synthetic_reward

    @property
    def goal(self) -> Mapping[str, Any]:
        """The goal record of the running episode."""
        return self.catalogue.goals[self.task.data["goal"]]

    def tasks(self, categories: Sequence[str] | None = None) -> list[Task]:
        """One task per goal, in a fixed order; `categories` keeps those of the named categories.

        Raises:
            ValueError: if a category has no task.
        """
        return select_tasks(self.catalogue.tasks, categories)

    def synthetic_rules(self, reward: Literal["rescore", "claimed", "zero"] | None = None) -> WebShopRules:
        """The rules that `generate_synthetic` follows; `reward` instead of the shop's `synthetic_reward`."""
        reward = self.synthetic_reward if reward is None else reward
        return WebShopRules(self.catalogue, self.max_steps, self.discount, reward)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        if terminated:
            info |= {"asin": self._asin, "options": dict(self.options)}
        return observation, reward, terminated, truncated, info

    step.__doc__ = Shop.step.__doc__

    def _find_task(self, task: Task | str | None, seed: int | None) -> Task:
        if task is None:
            weights = self.catalogue.cumulative_weights
            return self.catalogue.tasks[bisect(weights, Random(seed).random() * weights[-1])]
        task_id = task if isinstance(task, str) else task.id
        if task_id not in self.catalogue.tasks_by_id:
            raise ValueError(f"this shop has no task {task_id!r}; env.tasks() has its {len(self.catalogue.tasks)}")
        known = self.catalogue.tasks_by_id[task_id]
        if isinstance(task, Task) and task.data.get("shop", known.data["shop"]) != known.data["shop"]:
            raise ValueError(f"task {task_id!r} was made for another catalogue ({task.data['shop']})")
        return known

    def _enter(self) -> None:
        self._keywords: list[str] = []
        self._number = 1
        self._asin = ""
        self.visited = set()
        self.options = {}
        self.page = pages.index_page(self.goal["instruction_text"])

    def _search(self, words: str) -> None:
        self._keywords = words.split(" ")
        self._open_results(1)

    def _click(self, name: str, node: pages.Node) -> None:
        # The name decides first, as in the original: an option called "buy now" buys.
        kind = self.page.kind
        if name == "buy now":
            self._buy()
        elif name == "back to search":
            self._enter()
        elif name == "next >" and kind == "results":
            self._open_results(self._number + 1)
        elif name == "< prev" and kind == "results":
            self._open_results(self._number - 1)
        elif name == "< prev" and kind == "item":
            self._open_results(self._number)
        elif name in pages.SUB_PAGES:
            url = self._url("item_sub_page", f"{name.capitalize()}/{self.options}")
            product = self.catalogue.by_asin[self._asin]
            self.page = pages.sub_page(self.goal["instruction_text"], product, name, url)
        else:
            if node.kind == "asin":
                self._asin = node.text
                self.visited.add(node.text)
            elif node.kind == "option":
                self.options[node.name] = name
            self._open_item()

    def _open_results(self, number: int) -> None:
        self._number, self._asin, self.options = number, "", {}
        found = self.catalogue.index.search(" ".join(self._keywords), MAX_HITS)
        first = (number - 1) * self.results_per_page
        listed = [self.catalogue.by_asin[asin] for asin in found[first : first + self.results_per_page]]
        url = f"/search_results/{self.task.id}/{'+'.join(self._keywords)}/{number}"
        self.page = pages.results_page(self.goal["instruction_text"], listed, number, len(found), url)

    def _open_item(self) -> None:
        url = self._url("item_page", json.dumps(self.options))
        self.page = pages.item_page(self.goal["instruction_text"], self.catalogue.by_asin[self._asin], url)

    def _buy(self) -> None:
        product, price = self.catalogue.by_asin[self._asin], self.catalogue.prices[self._asin]
        self.reward_parts = purchase_reward(self.goal, product, self.options, price, nouns=self.nouns)
        self.page = pages.done_page(self._asin, self.options, self.reward_parts["reward"])

    def _url(self, page: str, tail: str) -> str:
        return f"/{page}/{self.task.id}/{self._asin}/{'+'.join(self._keywords)}/{self._number}/{tail}"


def _open_catalogue(catalogue: Catalogue | str, seed: int | None) -> Catalogue:
    if isinstance(catalogue, Catalogue):
        if seed is not None:
            raise ValueError(f"seed={seed!r} makes a generated shop; this catalogue is made already, leave `seed` out")
        return catalogue
    if not isinstance(catalogue, str):
        raise ValueError(f"catalogue {catalogue!r} is not 'full', 'small' or a Catalogue")
    try:
        seed = 0 if seed is None else index(seed)
    except TypeError:
        raise ValueError(f"`seed` must be a whole number, got {seed!r}") from None
    return load_catalogue(catalogue, seed)
