"""Shopping requests worded as people worded them: lower case, no apostrophes, attributes as adjectives."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from .full_table import CATEGORIES


# Roughly as often as in people's requests.
_OPENINGS = (
    *["i am looking for"] * 8,
    *["im looking for"] * 5,
    *["i would like"] * 3,
    *["i need"] * 4,
    *["i want"] * 3,
    "i want to buy",
    "i need to buy",
    "i am interested in",
    "id like to find",
    "find me",
    "can you find me",
    "get me",
)
_HEADS = {leaf.query: leaf.heads for category in CATEGORIES for leaf in category.leaves}
_LINKED = {"plug play": "plug and play", "ready eat": "ready to eat", "ready hang": "ready to hang"}


def write_instruction(
    product: Mapping[str, Any], attributes: Sequence[str], options: Mapping[str, str], rng: Random
) -> str:
    """A request for the kind of thing that `product` is, with these attributes and options."""
    noun = _noun(product, rng)
    worded = [_word_attribute(attribute, rng) for attribute in attributes]
    in_front = [words for words in worded if rng.random() < 0.45]
    behind = [words for words in worded if words not in in_front]
    phrase = " ".join([*in_front, noun])
    phrase = f"{_article(phrase)} {phrase}" if rng.random() < 0.75 and not noun.endswith("s") else phrase
    clauses = []
    if behind:
        clauses.append(rng.choice(("that is ", "which is ", "that are ", "with ", "")) + " and ".join(behind))
    clauses += [_word_option(name, value, rng) for name, value in options.items()]
    if len(clauses) > 1 and rng.random() < 0.3:
        clauses[-1] = "and " + clauses[-1]
    separator = rng.choice((", ", " ", " "))
    return " ".join([rng.choice(_OPENINGS), separator.join([phrase, *clauses])])


def _noun(product: Mapping[str, Any], rng: Random) -> str:
    # People name the thing by what they saw in its title or by a general term.
    heads = [head for head in _HEADS[product["query"]] if head in product["Title"]]
    noun = (rng.choice(heads).lower() if heads and rng.random() < 0.6 else product["query"]).replace("'", "")
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") and rng.random() < 0.3 else noun


def _article(phrase: str) -> str:
    return "an" if phrase[0] in "aeiou" else "a"


def _word_attribute(attribute: str, rng: Random) -> str:
    if attribute.startswith("easy "):
        return attribute.replace("easy ", "easy to ")
    attribute = _LINKED.get(attribute, attribute)
    return attribute.replace(" ", "-") if rng.random() < 0.15 else attribute


def _word_option(name: str, value: str, rng: Random) -> str:
    if name == "color":
        return rng.choice((f"in {value} color", f"in {value}", f"in the color {value}", f"color {value}"))
    if name == "size":
        return rng.choice((f"in size {value}", f"size {value}", f"in a size {value}", f"{value} size"))
    if name == "fit type":
        return rng.choice((f"for {value}", f"with a {value} fit", f"fit type {value}"))
    name = name.removesuffix(" name")
    return rng.choice((f"{name}: {value}", f"the {name} should be {value}", f"i prefer the {value} {name}"))
