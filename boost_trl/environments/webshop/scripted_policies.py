"""Scripted policies of different quality. They see what any policy sees: the instruction, the page and its actions."""

import re
from collections.abc import Sequence
from random import Random

from .environment import WebShop
from .text import colour_word, fuzzy_equal


_BOUND = re.compile(r"(?:, and price lower than |\bunder )(\d+(?:\.\d+)?)")
_PRICE = re.compile(r"\d+(?:\.\d+)?")
_CHATTER = frozenset(
    """
    i im am id looking look for would like need want to buy find me can you get interested in a an the that is are
    which with and of size color style scent flavor should be prefer price lower than dollars under my some it
    """.split()
)


class Strategy:
    """A scripted policy in one episode: [`act`] answers each observation with an action.

    Args:
        env (`WebShop`): after its `reset`; used for the goal's wording and the page's actions only.
        rng (`Random`): every decision comes from it.
    """

    def __init__(self, env: WebShop, rng: Random):
        self.env, self.rng = env, rng
        self.instruction = env.goal["instruction_text"]
        bound = _BOUND.search(self.instruction)
        self.bound = float(bound[1]) if bound else float("inf")
        self.request = _BOUND.sub("", self.instruction).removesuffix(" dollars").strip()
        self.keywords = [word for word in re.split(r"[\s,]+", self.request) if word and word not in _CHATTER]
        self.script = self.play()

    def act(self) -> str:
        verb, _, argument = next(self.script, "click[buy now]").partition("[")
        return self.env.write_action(verb, argument.removesuffix("]"))

    def play(self):
        """Yield one action after another; the page is that of the last one."""
        raise NotImplementedError

    @property
    def page(self) -> str:
        return self.env.page.kind

    def products(self) -> list[tuple[str, str, float]]:
        """(name to click, title, price) of the products on a results page."""
        texts = [node.text for node in self.env.page.nodes]
        rows = [at for at, node in enumerate(self.env.page.nodes) if node.kind == "asin"]
        listed = [name for name in self.env.clickable_names() if name not in ("back to search", "< prev", "next >")]
        return [(name, texts[at + 1], float(_PRICE.findall(texts[at + 2])[0])) for name, at in zip(listed, rows)]

    def options(self) -> dict[str, list[str]]:
        values: dict[str, list[str]] = {}
        for node in self.env.page.nodes:
            if node.kind == "option":
                values.setdefault(node.name, []).append(node.text)
        return values

    def short_query(self, words: int = 8) -> str:
        return " ".join(self.keywords[:words])

    def fit(self, title: str) -> float:
        """Share of the request's keywords that a title has."""
        words = set(re.findall(r"\w+", title.lower()))
        parts = set(re.findall(r"\w+", " ".join(self.keywords)))
        return len(parts & words) / max(len(parts), 1)

    def wanted(self, values: Sequence[str]) -> str | None:
        """The longest option value that the request names."""
        spaced = f" {self.request} ".replace(",", " ")
        named = [value for value in values if f" {value} " in spaced]
        return max(named, key=len, default=None)

    def in_budget(self, price: float) -> bool:
        return price <= self.bound


class Expert(Strategy):
    """Short query, best listed match within the budget over two pages, all options that are asked for, then buys."""

    def play(self):
        yield f"search[{self.short_query()}]"
        best = self.best()
        if best is None or best[0] < 0.6:
            yield "click[next >]"
            second = self.best()
            if best is not None and (second is None or second[0] <= best[0]):
                yield "click[< prev]"
            else:
                best = second
        if best is None:
            yield "click[back to search]"
            yield f"search[{self.short_query(3)}]"
            best = self.best(strict=False)
        if best is None:
            return
        yield f"click[{best[1]}]"
        yield from self.choose_options()
        yield "click[buy now]"

    def best(self, strict: bool = True) -> tuple[float, str] | None:
        ranked = [
            (self.fit(title) - 0.001 * rank, name)
            for rank, (name, title, price) in enumerate(self.products())
            if self.in_budget(price) or not strict
        ]
        return max(ranked, default=None)

    def choose_options(self):
        for values in self.options().values():
            value = self.wanted(values)
            if value is not None:
                yield f"click[{value}]"


class PrivilegedExpert(Expert):
    """Knows the goal, which is hidden from all others: looks for its own product, page by page, and takes exactly the options that count."""

    def play(self):
        goal = self.env.goal
        target = self.env.catalogue.by_asin[goal["asin"]]
        yield f"search[{target['Title'].lower()}]"
        pages_left = 3
        while (name := self.name_of(goal["asin"])) is None and pages_left:
            pages_left -= 1
            yield "click[next >]"
        yield f"click[{name or self.products()[0][0]}]"
        wanted = goal["goal_options"].values() if isinstance(goal["goal_options"], dict) else goal["goal_options"]
        for values in self.options().values():
            value = next((value for value in values if value in wanted), None)
            value = value or next((value for value in values if any(_same(value, other) for other in wanted)), None)
            if value is not None:
                yield f"click[{value}]"
        yield "click[buy now]"

    def name_of(self, asin: str) -> str | None:
        shown = [node.text for node in self.env.page.nodes if node.kind == "asin"]
        return self.products()[shown.index(asin)][0] if asin in shown else None


class Hasty(Strategy):
    """Buys the first hit as it is."""

    def play(self):
        yield f"search[{self.short_query()}]"
        yield f"click[{self.products()[0][0]}]" if self.products() else "click[back to search]"
        yield "click[buy now]"


class Wanderer(Expert):
    """Searches the whole request, reads about the products it looks at, and buys the last one, late."""

    def play(self):
        yield f"search[{self.request}]"
        looks = max(1, min(self.rng.choice((1, 2)), (self.env.max_steps - 7) // 4))
        for left, (name, _, _) in reversed(list(enumerate(reversed(self.products()[:looks])))):
            yield f"click[{name}]"
            yield f"click[{self.rng.choice(('description', 'features', 'reviews'))}]"
            yield "click[< prev]"
            if left:
                yield "click[< prev]"
        yield from self.choose_options()
        yield "click[buy now]"


class WrongOption(Expert):
    """An expert with a careless hand: of every option it takes a value that was not asked for."""

    def choose_options(self):
        for values in self.options().values():
            wanted = self.wanted(values)
            others = [value for value in values if value != wanted]
            if others:
                yield f"click[{self.rng.choice(others)}]"


class WrongItem(Expert):
    """Takes a listed product at random, whatever it costs, then chooses its options well."""

    def best(self, strict: bool = True) -> tuple[float, str] | None:
        products = self.products()
        listed = products[2:] or products
        return (1.0, self.rng.choice(listed)[0]) if listed else None


class RandomClicker(Strategy):
    """Anything that the page allows, uniformly; searches for a few words of the request."""

    def play(self):
        while True:
            names = self.env.clickable_names()
            words = self.rng.sample(self.keywords, min(len(self.keywords), 3))
            search = [f"search[{' '.join(words)}]"] if self.page == "index" else []
            yield self.rng.choice([*search, *(f"click[{name}]" for name in names)])


class Broken(Strategy):
    """Bad synthetic data: product codes that were never listed, second searches, made-up verbs."""

    def play(self):
        yield f"search[{self.short_query()}]"
        compact = self.env.observation_mode == "compact"
        yield f"click[{self.rng.randrange(4, 10)}]" if compact else f"click[B0{self.rng.randrange(10**8):08d}]"
        yield "think[this one looks right]"
        yield f"search[{self.short_query(2)}]"
        if self.products() and self.rng.random() < 0.5:
            yield f"click[{self.rng.choice(self.products())[0]}]"
            yield "click[buy now]"
        while True:
            yield f"click[{self.rng.choice(('add to cart', 'checkout', 'buy'))}]"


def _same(left: str, right: str) -> bool:
    return fuzzy_equal(colour_word(left), colour_word(right))


STRATEGIES: dict[str, type[Strategy]] = {
    "privileged_expert": PrivilegedExpert,
    "expert": Expert,
    "hasty": Hasty,
    "wanderer": Wanderer,
    "wrong_option": WrongOption,
    "wrong_item": WrongItem,
    "random": RandomClicker,
    "broken": Broken,
}
DEFAULT_MIX = {
    "privileged_expert": 0.05,
    "expert": 0.15,
    "hasty": 0.20,
    "wanderer": 0.10,
    "wrong_option": 0.15,
    "wrong_item": 0.10,
    "random": 0.15,
    "broken": 0.10,
}
