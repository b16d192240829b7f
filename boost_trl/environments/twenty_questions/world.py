"""What a game of Twenty Questions is played in: items, yes/no questions and the table that answers them."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np


_SUBJECT = r"(?:it|this|that|they|these|those|(?:the|your) (?:object|thing|item|word|answer))"
_SUBJECT_AFTER_VERB = re.compile(
    rf"^(is|are|was|were|does|do|did|can|could|would|will|has|have) {_SUBJECT}\b ?(?:be\b ?)?"
)
_TO_BE = re.compile(r"^(?:is|are|was|were|could|would|will)\b ?")
_ARTICLES = re.compile(r"\b(?:a|an|the|some|any|very)\b ?")
_KIND_OF = re.compile(r"^(?:(?:kind|type|sort) of |something called |called )+")


def normalise(text: str) -> str:
    """Reduce a question to what it asks: `"Is it a Cat?"` -> `"cat"`, `"Can it fly?"` -> `"can fly"`.

    Case, punctuation, articles, the subject and forms of "to be" carry no meaning in this game.
    """
    text = " ".join(re.sub(r"[^a-z0-9 ]+", " ", text.lower().replace("'", "")).split())
    match = _SUBJECT_AFTER_VERB.match(text)
    if match:
        text = f"{match.group(1)} {text[match.end() :]}"
    text = _ARTICLES.sub("", _TO_BE.sub("", text)).strip()
    return _KIND_OF.sub("", text).strip()


@dataclass(frozen=True)
class Item:
    """Something to be guessed.

    Args:
        id (`str`): unique within its world.
        category (`str`): what splits are made by.
        names (`tuple[str, ...]`): the name and the variants that count as naming it.
        guess (`str`): the question that guesses it.
    """

    id: str
    category: str
    names: tuple[str, ...]
    guess: str


@dataclass(frozen=True)
class Question:
    """A yes/no question about an attribute.

    Args:
        text (`str`): the usual wording.
        paraphrases (`tuple[str, ...]`, *optional*): others that mean the same.
        says (`tuple[str, str]`, *optional*): what the oracle adds to its yes and to its no.
    """

    text: str
    paraphrases: tuple[str, ...] = ()
    says: tuple[str, str] = ("", "")


@dataclass(frozen=True, eq=False)
class World:
    """Items, questions and their answers.

    Args:
        name (`str`): `"small"` or `"full"`.
        items (`tuple[Item, ...]`): what can be the secret.
        questions (`tuple[Question, ...]`): what the oracle understands besides guesses.
        table (`np.ndarray`): bool, (items, questions); the true answers.
        max_questions (`int`): questions after which a game is lost.
        announces_category (`bool`): whether the first observation tells the category.
        yes, no (`str`): the oracle's words.
        opening (`str`): the first observation; `{category}` is filled in.
        system_prompt (`str`): the rules in words, for models that can read them.
        category_questions (`dict[str, str]`): category -> the question that asks for it, where there are such.
    """

    name: str
    items: tuple[Item, ...]
    questions: tuple[Question, ...]
    table: np.ndarray
    max_questions: int
    announces_category: bool
    yes: str
    no: str
    opening: str
    system_prompt: str = ""
    category_questions: dict[str, str] = field(default_factory=dict)
    _read_cache: dict = field(default_factory=dict, repr=False)

    def __deepcopy__(self, memo):
        return self  # immutable and large: copies of an environment share it

    @cached_property
    def categories(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(item.category for item in self.items))

    @cached_property
    def _questions_by_key(self) -> dict[str, int]:
        return {
            normalise(wording): index
            for index, question in enumerate(self.questions)
            for wording in (question.text, *question.paraphrases)
        }

    @cached_property
    def _items_by_name(self) -> dict[str, frozenset[int]]:
        named: dict[str, set[int]] = {}
        for index, item in enumerate(self.items):
            for name in item.names:
                named.setdefault(normalise(name), set()).add(index)
        return {name: frozenset(indices) for name, indices in named.items()}

    @cached_property
    def index_of(self) -> dict[str, int]:
        """Item id -> row of the table."""
        return {item.id: index for index, item in enumerate(self.items)}

    def read(self, text: str) -> tuple[int | None, frozenset[int]]:
        """What a question asks: (index of the attribute question or `None`, indices of the items it names)."""
        if text not in self._read_cache:
            if len(self._read_cache) > 100_000:  # free text from a sampled model is unbounded
                self._read_cache.clear()
            key = normalise(text)
            self._read_cache[text] = self._questions_by_key.get(key), self._items_by_name.get(key, frozenset())
        return self._read_cache[text]

    def answer(self, text: str, item: Item) -> str:
        """The table's answer to any text; what is not understood is answered with no."""
        question, named = self.read(text)
        index = self.index_of[item.id]
        return self.reply(text, index in named or (question is not None and bool(self.table[index, question])))

    def reply(self, text: str, is_yes: bool) -> str:
        """The oracle's words for yes or no to a question."""
        question, _ = self.read(text)
        said = "" if question is None else self.questions[question].says[not is_yes]
        return f"{self.yes if is_yes else self.no} {said}".strip()

    def names(self, text: str, item: Item) -> bool:
        """Whether the text guesses this item, and nothing else."""
        return self.index_of[item.id] in self.read(text)[1]

    def observation(self, category: str) -> str:
        """The first observation of a game."""
        return self.opening.format(category=category)

    def candidates(self, category: str | None = None) -> np.ndarray:
        """Indices of the items that a player who knows the rules has to consider at the start."""
        if not self.announces_category or category is None:
            return np.arange(len(self.items))
        return np.array([index for index, item in enumerate(self.items) if item.category == category])

    def with_changed_facts(self, seed: int) -> "World":
        """A world that asks and says the same but in which every item has another item's attributes.

        Rows are moved by one random cycle inside each category. Categories of one size share the cycle, so that a
        codebook that all categories share stays shared.
        """
        table = self.table.copy()
        for category in self.categories:
            rows = [index for index, item in enumerate(self.items) if item.category == category]
            order = list(range(len(rows)))
            random.Random(f"changed facts {seed} {len(rows)}").shuffle(order)
            for position, here in enumerate(order):
                table[rows[here]] = self.table[rows[order[position - 1]]]
        return replace(self, table=table)


SMALL_CATEGORIES = (
    "metals", "birds", "tools", "drinks", "fabrics", "stones", "games", "boats", "lamps", "herbs", "masks", "toys",
)  # fmt: skip
# The oracle names what it says yes or no to: a tiny model can then add up what it was told without first having to bind
# every answer to the question before it, which takes it many times longer to learn.
SMALL_ATTRIBUTES = {
    "heavy": "light", "shiny": "dull", "round": "flat", "warm": "cold",
    "soft": "hard", "loud": "quiet", "old": "new", "rare": "common",
}  # fmt: skip
SMALL_NUMBERS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight",
    "nine", "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
)  # fmt: skip


@lru_cache(maxsize=64)
def small_world(seed: int = 0, max_questions: int | None = None) -> World:
    """The world that a tiny model learns from zero: 12 categories of 16 numbered items and 8 questions.

    The category is announced. Questions, numbers and the codebook from number to attributes are the same in all
    categories, so all that a good player needs carries over to categories without training data. Each attribute is
    true of half of the numbers. A perfect player needs 4.5 questions where halving stays possible.

    Args:
        seed (`int`, *optional*, defaults to `0`): which codebook.
        max_questions (`int`, *optional*, defaults to 12): questions per game.
    """
    rng = random.Random(f"small world {seed}")
    half = len(SMALL_NUMBERS) // 2
    while True:
        columns = [rng.sample([True] * half + [False] * half, k=2 * half) for _ in SMALL_ATTRIBUTES]
        codebook = np.array(columns).T
        if len({row.tobytes() for row in codebook}) == len(codebook):
            break
    items = tuple(
        Item(f"{category}/{number}", category, (f"number {number}", number), f"number {number}?")
        for category in SMALL_CATEGORIES
        for number in SMALL_NUMBERS
    )
    return World(
        name="small",
        items=items,
        questions=tuple(Question(f"very {one}?", says=(one, other)) for one, other in SMALL_ATTRIBUTES.items()),
        table=np.tile(codebook, (len(SMALL_CATEGORIES), 1)),
        max_questions=max_questions or 12,
        announces_category=True,
        yes="yes",
        no="no",
        opening="category: {category}",
    )


def sample(options: Sequence, rng: random.Random):
    """One of `options`, which may be an array."""
    return options[rng.randrange(len(options))]
