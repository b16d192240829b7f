"""The original WebShop's web site as an environment, played over HTTP with the standard library alone."""

from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import quote, urlencode, urljoin
from uuid import uuid4

from ..base import Task
from . import pages
from .catalogue import Catalogue
from .fetch import checked_base, fetch
from .html_page import Link, read_address, read_html
from .shop import Shop, as_reward_parts, find_numbered_task, numbered_tasks, select_tasks


class WebShopHTTP(Shop):
    """The original's Flask site over HTTP. Implements [`~boost_trl.environments.Environment`].

    Session `fixed_<i>` of the site has its goal number i, so these numbers are the tasks.

    Args:
        base_url (`str`): where the site runs, such as `"http://localhost:3000"`.
        num_goals (`int`, *optional*, defaults to 500): goals 0 to `num_goals` - 1 are the tasks (0 to 499 are the
            original's test split).
        catalogue (`Catalogue`, *optional*): of the files that the site serves ([`Catalogue.from_webshop`]); gives tasks
            their instructions and categories, which the site does not tell, and replaces `num_goals`.
        observation, max_steps, discount, max_searches, leak_reward:
            As in [`WebShop`], defaults of the full shop.
        timeout (`float`, *optional*, defaults to 30): seconds to wait for an answer.

    Raises:
        ConnectionError: from `reset` and `step`, if the site cannot be reached or answers with an error.
        ValueError: from the same, if what answers is no WebShop.
    """

    def __init__(
        self,
        base_url: str,
        *,
        num_goals: int = 500,
        catalogue: Catalogue | None = None,
        observation: Literal["text_rich", "text", "compact"] = "text_rich",
        max_steps: int = 15,
        discount: float = 0.99,
        max_searches: int | None = None,
        leak_reward: bool = False,
        timeout: float = 30.0,
    ):
        super().__init__(observation, max_steps, discount, max_searches, leak_reward)
        self.base_url, self.timeout = checked_base(base_url), timeout
        known = [("webshop", "")] * num_goals
        if catalogue is not None:
            known = [(task.category, task.prompt) for task in catalogue.tasks]
        self._tasks = numbered_tasks(known)

    def tasks(self, categories: Sequence[str] | None = None) -> list[Task]:
        """The site's goals by number; without a catalogue they are all of the category "webshop"."""
        return select_tasks(list(self._tasks.values()), categories)

    def _find_task(self, task: Task | str | None, seed: int | None) -> Task:
        return find_numbered_task(self._tasks, task, seed)

    def _enter(self) -> None:
        # A session of our own: the site keeps what a session did, and others may play the same goal.
        self._session = f"fixed-{uuid4().hex[:12]}_{self.task.data['goal']}"
        self._open(Link(self._session, post=False))

    def _search(self, words: str) -> None:
        # The site puts the words into a path, where a slash cannot be.
        self._open(Link(self._session, post=True), {"search_query": words.replace("/", " ")})

    def _click(self, name: str, node: pages.Node) -> None:
        if node.kind == "asin":
            self.visited.add(node.text)
            name = node.text.lower()
        link = self._here.links[name]
        self._open(link._replace(target=urljoin(self._url, link.target)))

    def _open(self, link: Link, form: dict[str, Any] | None = None) -> None:
        url = urljoin(self.base_url, quote(link.target, safe="/:?&=%#+'()[]{},;@!$*~"))
        data = urlencode(form or {}).encode() if link.post else None
        html, address = fetch(url, self.timeout, data)
        self._url, self._here = address, read_html(html)
        kind, self.options = read_address(address)
        self.page = self._here.as_page(kind, self.options)
        if kind == "index":
            self.visited = set()
        if kind == "done":
            if self._here.score is None:
                raise ValueError(f"{address} is the page after a purchase but shows no score")
            self.reward_parts = as_reward_parts(self._here.score, self._here.details)
