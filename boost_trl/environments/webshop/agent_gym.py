"""AgentGym's WebShop server (`agentenv-webshop`) as an environment."""

import copy
import json
from collections.abc import Sequence
from typing import Any

from ..base import Task
from . import pages
from .fetch import checked_base, fetch
from .shop import Shop, as_reward_parts, find_numbered_task, numbered_tasks, select_tasks


class WebShopAgentGym(Shop):
    """
    A server that speaks AgentGym's protocol: POST `create`, `reset`, `step` and `close`, GET `available_actions`, with an
    environment's number in each. Observations are the original's simple text, which is what it sends. The categories of
    its goals and the parts of a score are not known.

    Args:
        base_url (`str`): where the server runs, such as `"http://localhost:36001"`.
        num_goals (`int`, *optional*, defaults to 500): goals 0 to `num_goals` - 1 are the tasks.
        max_steps, discount, max_searches, leak_reward:
            As in [`WebShop`], defaults of the full shop.
        timeout (`float`, *optional*, defaults to 300): seconds to wait for an answer; `create` loads all products.

    Raises:
        ConnectionError: from `reset` and `step`, if the server cannot be reached or answers with an error.
    """

    def __init__(
        self,
        base_url: str,
        *,
        num_goals: int = 500,
        max_steps: int = 15,
        discount: float = 0.99,
        max_searches: int | None = None,
        leak_reward: bool = False,
        timeout: float = 300.0,
    ):
        super().__init__("text", max_steps, discount, max_searches, leak_reward)
        self.base_url, self.timeout = checked_base(base_url), timeout
        self._tasks = numbered_tasks([("webshop", "")] * num_goals)
        self._number: int | None = None
        self._names: list[str] = []

    def tasks(self, categories: Sequence[str] | None = None) -> list[Task]:
        """The server's goals by number, all of the category "webshop"."""
        return select_tasks(list(self._tasks.values()), categories)

    def close(self) -> None:
        super().close()
        if self._number is not None:
            self._post("close")
            self._number = None

    def __deepcopy__(self, memo) -> "WebShopAgentGym":
        # A copy plays its own game on the server.
        other = copy.copy(self)
        other._number = None
        return other

    def _find_task(self, task: Task | str | None, seed: int | None) -> Task:
        return find_numbered_task(self._tasks, task, seed)

    def _enter(self) -> None:
        if self._number is None:
            self._number = self._post("create")
        self._look(self._post("reset", session_id=self.task.data["goal"])[0])

    def _search(self, words: str) -> None:
        self._act_there(f"search[{words}]")

    def _click(self, name: str, node: pages.Node) -> None:
        self._act_there(f"click[{name}]")

    def _act_there(self, action: str) -> None:
        answer = self._post("step", action=action)
        if answer["done"]:
            self.reward_parts = as_reward_parts(answer["reward"], {})
        self._look(answer["state"], done=answer["done"])

    def _look(self, text: str, done: bool = False) -> None:
        url = f"{self.base_url}available_actions?env_idx={self._number}"
        actions = json.loads(fetch(url, self.timeout)[0])
        self._names = actions["clickables"]
        kind = "index" if actions["has_search_bar"] else "results" if "next >" in self._names else "sub page"
        kind = "done" if done else "item" if "buy now" in self._names else kind
        self.page = pages.Page(kind, tuple(pages.Node(part) for part in text.split(" [SEP] ")))

    def _list_clickables(self) -> None:
        self._clickables = {name: pages.Node(name, "button") for name in self._names}

    def _post(self, verb: str, **fields: Any) -> Any:
        body = {} if verb == "create" else {"env_idx": self._number, **fields}
        text, _ = fetch(self.base_url + verb, self.timeout, json.dumps(body).encode(), "application/json")
        return json.loads(text)
