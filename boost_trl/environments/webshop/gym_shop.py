"""The original WebShop's own gym environment, in this process, as one of ours."""

import copy
from collections.abc import Sequence
from typing import Any, Literal
from uuid import uuid4

from ..base import Task
from . import pages
from .html_page import read_html
from .records import category_label
from .shop import Shop, as_reward_parts, find_numbered_task, numbered_tasks, select_tasks


class WebShopGym(Shop):
    """Wraps the original's `WebAgentTextEnv` (`gym.make("WebAgentTextEnv-v0", …)`), which its owner has installed.

    Its goals, by number, are the tasks. Copies, such as the games of a batched rollout, share the `server`, which holds
    the products and takes long to load, and play in sessions of their own.

    Args:
        env (`gym.Env`): with `reset(session=…)`, `step(action)`, `state`, `session`, `session_prefix`, `browser` and
            `server`, as the original has. Wrappers are taken off.
        observation, max_steps, discount, max_searches, leak_reward:
            As in [`WebShop`], defaults of the full shop.

    Raises:
        ValueError: if `env` is no such environment.
    """

    def __init__(
        self,
        env: Any,
        *,
        observation: Literal["text_rich", "text", "compact"] = "text_rich",
        max_steps: int = 15,
        discount: float = 0.99,
        max_searches: int | None = None,
        leak_reward: bool = False,
    ):
        super().__init__(observation, max_steps, discount, max_searches, leak_reward)
        env = getattr(env, "unwrapped", env)
        missing = [name for name in ("server", "browser") if not hasattr(env, name)]
        if missing:
            raise ValueError(f"{type(env).__name__} is not the original's WebAgentTextEnv: it has no {missing[0]}")
        self.env = env
        self._tasks = numbered_tasks(
            [(category_label(goal["product_category"]), goal["instruction_text"]) for goal in env.server.goals]
        )

    def __deepcopy__(self, memo) -> "WebShopGym":
        # The browser has the current page; everything else of an episode is made anew by the original's reset.
        other = copy.copy(self)
        other.env = copy.copy(self.env)
        other.env.browser = copy.copy(self.env.browser)
        # Two games of one goal would otherwise be one session of the server.
        other.env.session_prefix = f"{uuid4().hex[:12]}_"
        other._over = True
        return other

    def tasks(self, categories: Sequence[str] | None = None) -> list[Task]:
        """One task per goal of the server, in its order."""
        return select_tasks(list(self._tasks.values()), categories)

    def _find_task(self, task: Task | str | None, seed: int | None) -> Task:
        return find_numbered_task(self._tasks, task, seed)

    def _enter(self) -> None:
        self.env.reset(session=self.task.data["goal"])
        self._read("index")

    def _search(self, words: str) -> None:
        self.env.step(f"search[{words}]")
        self._read("results")

    def _click(self, name: str, node: pages.Node) -> None:
        # The original knows products by their code, also where we number them.
        _, score, done, _ = self.env.step(f"click[{node.text if node.kind == 'asin' else name}]")
        if done:
            self.reward_parts = as_reward_parts(score, self._session.get("verbose_info", {}))
        self._read("done" if done else self._kind_after(name))

    @property
    def _session(self) -> dict[str, Any]:
        return self.env.server.user_sessions[self.env.session]

    def _kind_after(self, name: str) -> str:
        url = self.env.state["url"]
        for part, kind in (("/search_results/", "results"), ("/item_page/", "item"), ("/item_sub_page/", name)):
            if part in url:
                return kind
        return "index"

    def _read(self, kind: str) -> None:
        self.options, self.visited = dict(self._session["options"]), set(self._session["asins"])
        self.page = read_html(self.env.state["html"]).as_page(kind, self.options)
