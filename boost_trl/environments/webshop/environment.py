"""The shop as an environment: a page machine over a catalogue."""

import json
import re
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any, Literal

from ..base import Task
from . import pages
from .cache import load_catalogue
from .catalogue import Catalogue
from .reward import purchase_reward
from .text import title_nouns


MAX_HITS = 50
_ACTION = re.compile(r"(.+)\[(.+)\]")

_RULES = """You are shopping. Each turn you see the text of the current page and answer with exactly one action.
search[words]: search the shop with a few keywords.
click[name]: click a button, a product or an option of the current page.
Find the product that the instruction describes, click the options it asks for, then click[Buy Now]."""


class WebShop:
    """
    An online shop: search, look, choose options, buy. Implements [`~boost_trl.environments.Environment`].

    Rewards are 0 until the purchase, which pays `discount**(step - 1) * score` and ends the episode; the score is that
    of [`~boost_trl.environments.webshop.purchase_reward`]. `info` of the purchase has `score` (undiscounted),
    `discounted_score`, `success` (score 1), `reward_parts` and `asin`; an episode that is cut has score 0.

    Args:
        catalogue (`Catalogue` or `str`, *optional*, defaults to `"full"`): what is sold and wanted; `"full"` (10,000
            products in 37 categories) and `"small"` (a toy shop for models trained from scratch) are generated once
            and cached on disk.
        observation (`str`, *optional*): `"text_rich"` (the original's, one text per line, buttons marked; default),
            `"text"` (the original's simple mode) or `"compact"` (a few words; products are numbered and clicked by
            number; default for the small shop).
        max_steps (`int`, *optional*): actions until the episode is cut; 15, or 8 in the small shop.
        discount (`float`, *optional*, defaults to 0.99): per step before the purchase.
        max_searches (`int`, *optional*): further searches are no-ops.
        results_per_page (`int`, *optional*): 10, or 3 in the small shop.
        leak_reward (`bool`, *optional*, defaults to `False`): whether the last page shows the score, as the original's.
        nouns (`Callable`, *optional*): title to its nouns, for the reward's product type.

    Raises:
        ValueError: for an unknown catalogue or observation, or a limit below 1.
    """

    name = "webshop"

    def __init__(
        self,
        catalogue: Catalogue | str = "full",
        *,
        observation: Literal["text_rich", "text", "compact"] | None = None,
        max_steps: int | None = None,
        discount: float = 0.99,
        max_searches: int | None = None,
        results_per_page: int | None = None,
        leak_reward: bool = False,
        nouns: Callable[[str], Sequence[str]] = title_nouns,
    ):
        small = catalogue == "small"
        self.catalogue = load_catalogue(catalogue) if isinstance(catalogue, str) else catalogue
        self.observation_mode = observation or ("compact" if small else "text_rich")
        self.max_steps = max_steps if max_steps is not None else (8 if small else 15)
        self.results_per_page = results_per_page if results_per_page is not None else (3 if small else 10)
        self.discount, self.max_searches, self.leak_reward, self.nouns = discount, max_searches, leak_reward, nouns
        if self.observation_mode not in ("text_rich", "text", "compact"):
            raise ValueError(f"observation {observation!r} is not one of 'text_rich', 'text', 'compact'")
        for limit in ("max_steps", "results_per_page", "max_searches"):
            if getattr(self, limit) is not None and getattr(self, limit) < 1:
                raise ValueError(f"{limit} must be at least 1, got {getattr(self, limit)}")
        if not 0 < discount <= 1:
            raise ValueError(f"discount must be in (0, 1], got {discount}")
        self.system_prompt = "" if self.observation_mode == "compact" else _RULES
        self.page: pages.Page | None = None
        self._task: Task | None = None
        self._over = True

    @property
    def goal(self) -> Mapping[str, Any]:
        """The goal record of the running episode."""
        return self.catalogue.goals[self._task.data["goal"]]

    def tasks(self, categories: Sequence[str] | None = None) -> list[Task]:
        """One task per goal, in a fixed order; `categories` keeps those of the named categories.

        Raises:
            ValueError: if a category has no task.
        """
        tasks = self.catalogue.tasks
        if categories is None:
            return list(tasks)
        unknown = sorted(set(categories) - {task.category for task in tasks})
        if unknown:
            raise ValueError(f"no task has category {unknown[0]!r}")
        return [task for task in tasks if task.category in set(categories)]

    def reset(self, *, seed: int | None = None, task: Task | str | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode. Without a `task`, `seed` draws one by the goals' weights (no seed: a fresh draw).

        Raises:
            ValueError: if the task is unknown or belongs to another shop.
        """
        if task is None:
            weights = self.catalogue.cumulative_weights
            self._task = self.catalogue.tasks[bisect(weights, Random(seed).random() * weights[-1])]
        else:
            task_id = task if isinstance(task, str) else task.id
            if task_id not in self.catalogue.tasks_by_id:
                raise ValueError(f"this shop has no task {task_id!r}; env.tasks() has its {len(self.catalogue.tasks)}")
            self._task = self.catalogue.tasks_by_id[task_id]
            if isinstance(task, Task) and task.data.get("shop", self._task.data["shop"]) != self._task.data["shop"]:
                raise ValueError(f"task {task_id!r} was made for another catalogue ({task.data['shop']})")
        self._steps = self._searches = 0
        self._over = False
        self._open_index()
        return self._observation(), self._info(valid=True)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Do `search[words]` or `click[name]`; anything else changes nothing, and `info["error"]` says why.

        Raises:
            RuntimeError: if the episode is over.
        """
        if self._over:
            raise RuntimeError("the episode is over; call reset() first")
        self._steps += 1
        error = self._act(action)
        bought = self.page.kind == "done"
        cut = not bought and self._steps >= self.max_steps
        self._over = bought or cut
        info = self._info(valid=error is None)
        if error is not None:
            info["error"] = error
        reward = 0.0
        if self._over:
            score = self._parts["reward"] if bought else 0.0
            reward = self.discount ** (self._steps - 1) * score
            info |= {"score": score, "discounted_score": reward, "success": score == 1.0}
        if bought:
            info |= {"reward_parts": self._parts, "asin": self._asin, "options": dict(self._options)}
        return self._observation(), reward, bought, cut, info

    def admissible_actions(self) -> list[str]:
        """Every click of the current page and, where there is a search bar, `search[<words>]` as a pattern."""
        if self._over:
            return []
        clicks = [f"click[{name}]" for name in self._clickables if name != "search"]
        return ["search[<words>]", *clicks] if self.page.kind == "index" else clicks

    def close(self) -> None:
        self._over = True

    def _info(self, valid: bool) -> dict[str, Any]:
        return {
            "valid": valid,
            "task_id": self._task.id,
            "category": self._task.category,
            "step": self._steps,
            "page": self.page.kind,
        }

    def _act(self, action: str) -> str | None:
        """Perform the action, or say why it cannot be."""
        match = _ACTION.match(action) if isinstance(action, str) else None
        if match is None:
            return "an action is search[words] or click[name]"
        verb, argument = match[1], match[2].lower()
        if verb == "search":
            if self.max_searches is not None and self._searches >= self.max_searches:
                return f"no more than {self.max_searches} searches are allowed"
            self._searches += 1
            self._keywords = argument.split(" ")
            self._open_results(1)
            return None
        if verb != "click":
            return f"there is no action {verb!r}; use search[words] or click[name]"
        if argument not in self._clickables or argument == "search":
            return f"nothing on this page is called {argument!r}"
        self._click(argument, self._clickables[argument])
        return None

    def _click(self, name: str, node: pages.Node) -> None:
        # The name decides first, as in the original: an option called "buy now" buys.
        kind = self.page.kind
        if name == "buy now":
            self._buy()
        elif name == "back to search":
            self._open_index()
        elif name == "next >" and kind == "results":
            self._open_results(self._number + 1)
        elif name == "< prev" and kind == "results":
            self._open_results(self._number - 1)
        elif name == "< prev" and kind == "item":
            self._open_results(self._number)
        elif name in pages.SUB_PAGES:
            url = self._url("item_sub_page", f"{name.capitalize()}/{self._options}")
            self._show(pages.sub_page(self._instruction, self.catalogue.by_asin[self._asin], name, url))
        else:
            if node.kind == "asin":
                self._asin = node.text
                self._visited.add(node.text)
            elif node.kind == "option":
                self._options[node.name] = name
            self._open_item()

    @property
    def _instruction(self) -> str:
        return self.goal["instruction_text"]

    def _open_index(self) -> None:
        self._keywords: list[str] = []
        self._number = 1
        self._asin: str | None = None
        self._visited: set[str] = set()
        self._options: dict[str, str] = {}
        self._parts: dict[str, Any] | None = None
        self._show(pages.index_page(self._instruction))

    def _open_results(self, number: int) -> None:
        self._number, self._asin, self._options = number, None, {}
        found = self.catalogue.index.search(" ".join(self._keywords), MAX_HITS)
        first = (number - 1) * self.results_per_page
        listed = [self.catalogue.by_asin[asin] for asin in found[first : first + self.results_per_page]]
        url = f"/search_results/{self._task.id}/{'+'.join(self._keywords)}/{number}"
        self._show(pages.results_page(self._instruction, listed, number, len(found), url))

    def _open_item(self) -> None:
        url = self._url("item_page", json.dumps(self._options))
        self._show(pages.item_page(self._instruction, self.catalogue.by_asin[self._asin], url))

    def _buy(self) -> None:
        product, price = self.catalogue.by_asin[self._asin], self.catalogue.prices[self._asin]
        self._parts = purchase_reward(self.goal, product, self._options, price, nouns=self.nouns)
        self._show(pages.done_page(self._asin, self._options, self._parts["reward"] if self.leak_reward else None))

    def _url(self, page: str, tail: str) -> str:
        return f"/{page}/{self._task.id}/{self._asin}/{'+'.join(self._keywords)}/{self._number}/{tail}"

    def _show(self, page: pages.Page) -> None:
        self.page = page
        self._clickables = page.clickables()
        if self.observation_mode == "compact":
            ranks = (node for node in page.nodes if node.kind == "asin")
            numbered = {str(rank): node for rank, node in enumerate(ranks, 1)}
            self._clickables = {
                name: node for name, node in self._clickables.items() if node.kind != "asin"
            } | numbered

    def _observation(self) -> str:
        if self.observation_mode == "text":
            return pages.simple_text(self.page)
        if self.observation_mode == "text_rich":
            return pages.rich_text(self.page, self._visited)
        return pages.compact_text(self.page, self._options)
