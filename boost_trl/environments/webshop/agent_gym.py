"""AgentGym's WebShop server (`agentenv-webshop`) as an environment."""

import copy
import json
from collections.abc import Callable, Sequence
from operator import index
from typing import Any

from ..base import Task
from . import pages
from .fetch import checked_base, fetch
from .shop import Shop, as_reward_parts, find_numbered_task, numbered_tasks, select_tasks


class WebShopAgentGym(Shop):
    """A server that speaks AgentGym's protocol: POST `create`, `reset`, `step` and `close`, GET `available_actions`,
    with an environment's number in each. Observations are the original's simple text, which is what it sends. The
    categories of its goals and the parts of a score are not known.

    Args:
        base_url (`str`): where the server runs, such as `"http://localhost:36001"`.
        num_goals (`int`, *optional*, defaults to 500): goals 0 to `num_goals` - 1 are the tasks.
        max_steps, discount, max_searches, leak_reward:
            As in [`WebShop`], defaults of the full shop.
        timeout (`float`, *optional*, defaults to 300): seconds to wait for an answer; `create` loads all products.

    Raises:
        ConnectionError: from `reset` and `step`, if the server cannot be reached or answers with an error.
        ValueError: from the same, if what answers does not speak the protocol.
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
            self._post("close", bool)
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
            self._number = self._post("create", index)
        self._look(self._post("reset", _read_reset, session_id=self.task.data["goal"]))

    def _search(self, words: str) -> None:
        self._act_there(f"search[{words}]")

    def _click(self, name: str, node: pages.Node) -> None:
        self._act_there(f"click[{name}]")

    def _act_there(self, action: str) -> None:
        text, score, done = self._post("step", _read_step, action=action)
        if done:
            self.reward_parts = as_reward_parts(score, {})
        self._look(text, done)

    def _look(self, text: str, done: bool = False) -> None:
        search_bar, self._names = self._ask(f"available_actions?env_idx={self._number}", None, _read_actions)
        kind = "index" if search_bar else "results" if "next >" in self._names else "sub page"
        kind = "done" if done else "item" if "buy now" in self._names else kind
        self.page = pages.Page(kind, tuple(pages.Node(part) for part in text.split(" [SEP] ")))

    def _list_clickables(self) -> None:
        self._clickables = {name: pages.Node(name, "button") for name in self._names}

    def _post(self, verb: str, read: Callable[[Any], Any], **fields: Any) -> Any:
        body = {} if verb == "create" else {"env_idx": self._number, **fields}
        return self._ask(verb, json.dumps(body).encode(), read)

    def _ask(self, path: str, data: bytes | None, read: Callable[[Any], Any]) -> Any:
        text, address = fetch(self.base_url + path, self.timeout, data, "application/json" if data else None)
        try:
            return read(json.loads(text))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{address} does not speak AgentGym's protocol: it answers {text[:100]!r}") from error


def _read_reset(answer: Any) -> str:
    if not isinstance(answer, list) or not answer:
        raise TypeError("reset answers with a list")
    return _text(answer[0])


def _read_step(answer: Any) -> tuple[str, float, bool]:
    return _text(answer["state"]), float(answer["reward"]), bool(answer["done"])


def _read_actions(answer: Any) -> tuple[bool, list[str]]:
    return bool(answer["has_search_bar"]), [_text(name) for name in answer["clickables"]]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
