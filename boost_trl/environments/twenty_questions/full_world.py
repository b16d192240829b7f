"""World of the paper's game: 17 categories of everyday objects, nothing announced, twenty questions."""

from functools import lru_cache

import numpy as np

from boost_trl.environments.twenty_questions.full_table import ATTRIBUTES, OBJECTS
from boost_trl.environments.twenty_questions.prompts import AGENT_PROMPT
from boost_trl.environments.twenty_questions.world import Item, Question, World


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]


def _item(category: str, names: str) -> Item:
    """`"a cat/kitten"` -> the item with its guess, "Is it a cat?"."""
    first, *variants = _split(names, "/")
    plural, uncounted = first.startswith("+"), first.startswith("~")
    if plural or uncounted:
        name = first[1:]
        guess = f"Are they {name}?" if plural else f"Is it {name}?"
    else:
        name = first.split(" ", 1)[1]
        guess = f"Is it {first}?"
    return Item(f"{category}/{name}", category, (name, *variants), guess)


@lru_cache(maxsize=1)
def full_world() -> World:
    """Parse the table: 170 items, 17 category questions and the attribute questions; every item has its own answers."""
    keys, questions = [], []
    for line in _split(ATTRIBUTES, "\n"):
        key, wordings = line.split(":")
        first, *rest = _split(wordings, "|")
        keys.append(key)
        questions.append(Question(first, tuple(rest)))
    items, rows, category_of_question = [], [], {}
    for line in _split(OBJECTS, "\n"):
        if "|" in line:
            category, question, paraphrases, attributes = (part.strip() for part in line.split("|"))
            questions.append(Question(question, tuple(_split(paraphrases, ";"))))
            category_of_question[category] = question
            defaults = set(attributes.split())
            keys.append(category)
        else:
            names, attributes = line.split(":")
            own = attributes.split()
            items.append(_item(category, names))
            rows.append((defaults | {category, *own}) - {key[1:] for key in own if key.startswith("-")})
    table = np.array([[key in row for key in keys] for row in rows])
    return World(
        name="full",
        items=tuple(items),
        questions=tuple(questions),
        table=table,
        max_questions=20,
        announces_category=False,
        yes="Yes.",
        no="No.",
        opening="I am thinking of an object. Ask your first question.",
        system_prompt=AGENT_PROMPT,
        category_questions=category_of_question,
    )
