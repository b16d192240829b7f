"""Base of every shop, embedded or remote: the action grammar, rewards, limits and observations."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Literal

from ..base import Task
from . import pages
from .reward import terminal_reward


_ACTION = re.compile(r"(.+)\[(.+)\]")
_PLAIN_ACTION = re.compile(r"(\w+) (.+)")

_RULES = """You are shopping. Each turn you see the text of the current page and answer with exactly one action.
search[words]: search the shop with a few keywords.
click[name]: click a button, a product or an option of the current page.
Find the product that the instruction describes, click the options it asks for, then click[Buy Now]."""


class Shop(ABC):
    """Rewards are 0 until the purchase, which pays `discount**(step - 1) * score` and ends the episode. `info` of the
    last step has `score` (undiscounted; 0 if nothing was bought), `discounted_score` and `success` (score 1); that of
    a purchase has `reward_parts` as well.

    A subclass opens pages: it sets `page`, and, on the page after a purchase, `reward_parts` with at least `reward`.

    Args:
        observation (`str`): `"text_rich"`, `"text"` or `"compact"`.
        max_steps (`int`): actions until the episode is cut.
        discount (`float`): per step before the purchase.
        max_searches (`int` or `None`): further searches are no-ops.
        leak_reward (`bool`): whether the last page shows the score.
    """

    name = "webshop"
    # From `reset` on.
    task: Task
    page: pages.Page

    def __init__(
        self,
        observation: Literal["text_rich", "text", "compact"],
        max_steps: int,
        discount: float,
        max_searches: int | None,
        leak_reward: bool,
    ):
        if observation not in ("text_rich", "text", "compact"):
            raise ValueError(f"observation {observation!r} is not one of 'text_rich', 'text', 'compact'")
        if max_steps < 1 or (max_searches is not None and max_searches < 1):
            raise ValueError(f"max_steps and max_searches must be at least 1, got {max_steps} and {max_searches}")
        if not 0 < discount <= 1:
            raise ValueError(f"`discount` must be in (0, 1], got {discount}")
        self.observation_mode, self.max_steps, self.discount = observation, max_steps, discount
        self.max_searches, self.leak_reward = max_searches, leak_reward
        self.system_prompt = "" if observation == "compact" else _RULES
        self.options: dict[str, str] = {}
        self.visited: set[str] = set()
        self.reward_parts: dict[str, Any] = {}
        self._clickables: dict[str, pages.Node] = {}
        self._steps = self._searches = 0
        self._over = True

    @abstractmethod
    def tasks(self, categories: Sequence[str] | None = None) -> Sequence[Task]:
        """All tasks, or those of `categories`, in a fixed order."""

    @abstractmethod
    def _find_task(self, task: Task | str | None, seed: int | None) -> Task:
        """The task that `reset` is asked for."""

    @abstractmethod
    def _enter(self) -> None:
        """Open the first page of `self.task`."""

    @abstractmethod
    def _search(self, words: str) -> None:
        """Open the results for `words`."""

    @abstractmethod
    def _click(self, name: str, node: pages.Node) -> None:
        """Follow what is called `name` on the current page."""

    def reset(self, *, seed: int | None = None, task: Task | str | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode. Without a `task`, `seed` draws one (no seed: a fresh draw).

        Raises:
            ValueError: if the task is unknown, belongs to another shop, or is neither a `Task` nor an id.
        """
        # What fails below leaves no episode to step in.
        self._over = True
        if not isinstance(task, Task | str | None):
            raise ValueError(
                f"`task` must be a Task or its id, got {task!r:.80}; the `task` of a row is Task(**row['task'])"
            )
        self.task = self._find_task(task, seed)
        self._steps = self._searches = 0
        self.reward_parts = {}
        self._enter()
        self._list_clickables()
        self._over = False
        return self._observation(), self._info(valid=True)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Do `search[words]` or `click[name]`; anything else changes nothing, and `info["error"]` says why.

        With compact observations `search words` and `click name` do as well, for tokenizers that split at spaces.

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
            score = self.reward_parts["reward"] if bought else 0.0
            reward = terminal_reward(self._steps, score, self.discount)
            info |= {"score": score, "discounted_score": reward, "success": score == 1.0}
        if bought:
            info["reward_parts"] = dict(self.reward_parts)
        return self._observation(), reward, bought, cut, info

    def admissible_actions(self) -> list[str]:
        """Every click of the current page and, where there is a search bar, a search for `<words>` as a pattern.

        As in the original, a search works on the other pages as well, but only the search bar's page lists it.
        """
        if self._over:
            return []
        clicks = [self.write_action("click", name) for name in self.clickable_names()]
        return [self.write_action("search", "<words>"), *clicks] if self.page.kind == "index" else clicks

    def clickable_names(self) -> list[str]:
        """Names of all that can be clicked on the current page."""
        return [name for name in self._clickables if name != "search"]

    def write_action(self, verb: str, argument: str) -> str:
        """An action as text, in the form that goes with the observations."""
        return f"{verb} {argument}" if self.observation_mode == "compact" else f"{verb}[{argument}]"

    def close(self) -> None:
        self._over = True

    def _info(self, valid: bool) -> dict[str, Any]:
        return {
            "valid": valid,
            "task_id": self.task.id,
            "category": self.task.category,
            "step": self._steps,
            "page": self.page.kind,
        }

    def _act(self, action: str) -> str | None:
        """Perform the action, or say why it cannot be."""
        match = _ACTION.match(action) if isinstance(action, str) else None
        if match is None and isinstance(action, str) and self.observation_mode == "compact":
            match = _PLAIN_ACTION.match(action)
        if match is None:
            return "an action is search[words] or click[name]"
        verb, argument = match[1], match[2].lower()
        if verb == "search":
            if self.max_searches is not None and self._searches >= self.max_searches:
                return f"no more than {self.max_searches} searches are allowed"
            self._searches += 1
            self._search(argument)
        elif verb != "click":
            return f"there is no action {verb!r}; use search[words] or click[name]"
        elif argument not in self._clickables or argument == "search":
            return f"nothing on this page is called {argument!r}"
        else:
            self._click(argument, self._clickables[argument])
        self._list_clickables()
        return None

    def _list_clickables(self) -> None:
        self._clickables = self.page.clickables()
        if self.observation_mode == "compact":
            products = (node for node in self.page.nodes if node.kind == "asin")
            others = {name: node for name, node in self._clickables.items() if node.kind != "asin"}
            self._clickables = others | {str(rank): node for rank, node in enumerate(products, 1)}

    def _observation(self) -> str:
        page = self.page
        if page.kind == "done" and not self.leak_reward:
            page = pages.done_page("", {}, None)
        if self.observation_mode == "text":
            return pages.simple_text(page)
        if self.observation_mode == "text_rich":
            return pages.rich_text(page, self.visited)
        return pages.compact_text(page, self.options)


def select_tasks(tasks: list[Task], categories: Sequence[str] | None) -> list[Task]:
    """`tasks`, or those of `categories`.

    Raises:
        ValueError: if a category has no task.
    """
    wanted = None if categories is None else set(categories)
    unknown = sorted((wanted or set()) - {task.category for task in tasks})
    if unknown:
        raise ValueError(f"no task has category {unknown[0]!r}")
    return [task for task in tasks if wanted is None or task.category in wanted]


def as_reward_parts(score: float, details: Mapping[str, Any]) -> dict[str, Any]:
    """The original's score and reward details as [`purchase_reward`] has them."""
    return {"reward": score, **{part: details.get(part) for part in ("r_type", "r_att", "r_option", "r_price")}}


def numbered_tasks(goals: Sequence[tuple[str, str]]) -> dict[str, Task]:
    """Tasks `fixed_0`, `fixed_1`, … for a server's goals, given as (category, instruction)."""
    if not goals:
        raise ValueError("`num_goals` must be at least 1, got 0")
    return {
        f"fixed_{number}": Task(f"fixed_{number}", category, instruction, {"goal": number})
        for number, (category, instruction) in enumerate(goals)
    }


def find_numbered_task(tasks: Mapping[str, Task], task: Task | str | None, seed: int | None) -> Task:
    """The task of that name, or one drawn from `seed`.

    Raises:
        ValueError: if there is none.
    """
    if task is None:
        return Random(seed).choice(list(tasks.values()))
    task_id = task if isinstance(task, str) else task.id
    if task_id not in tasks:
        raise ValueError(f"no task is called {task_id!r}; tasks are fixed_0 to fixed_{len(tasks) - 1}")
    return tasks[task_id]
