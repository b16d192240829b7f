"""World of Twenty Questions: items, yes/no questions and the table of their answers."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

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
        says (`tuple[str, str]`, *optional*): what the answerer adds to its yes and to its no.
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
        questions (`tuple[Question, ...]`): what the answerer understands besides guesses.
        table (`np.ndarray`): bool, (items, questions); the true answers.
        max_questions (`int`): questions after which a game is lost.
        announces_category (`bool`): whether the first observation tells the category.
        yes, no (`str`): the answerer's words.
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
        """Meaning of a question: (index of the attribute question or `None`, indices of the items it names)."""
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
        """The answerer's words for yes or no to a question."""
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


def sample(options: Sequence | np.ndarray, rng: random.Random) -> Any:
    """One of `options`, which may be an array."""
    return options[rng.randrange(len(options))]
