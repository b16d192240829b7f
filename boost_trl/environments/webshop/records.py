"""Product and goal records in the original's form, read from the original's files."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product as combinations
from pathlib import Path
from random import Random
from typing import Any


NO_BOUND = 1_000_000


def category_label(product_category: str) -> str:
    """The first two levels of "A › B › C", as the paper names a task's category: "A – B"."""
    return " – ".join(level.strip() for level in product_category.split("›")[:2])


def price_tag(pricing: list[float]) -> str:
    return f"${pricing[0]}" if len(pricing) == 1 else f"${pricing[0]} to ${pricing[1]}"


def parse_pricing(text: str | None) -> list[float]:
    """Prices in a string like "$12.99" or "$12.99$19.99": one, or the first two; [100.0] where there is none."""
    if not text:
        return [100.0]
    parts = [re.sub(r"[^\d.]", "", part) for part in text.split("$")[1:]][:2]
    try:
        return [float(part) for part in parts] or [100.0]
    except ValueError:
        raise ValueError(f"pricing {text!r} is no price") from None


def make_record(item: Mapping[str, Any]) -> dict[str, Any]:
    """Record of one item of the original's product file, as pages and reward need it; its attributes are in another file."""
    for key in ("asin", "name", "category", "query", "product_category"):
        _expect(item[key], str, key)
    bullets = item["small_description"]
    pricing = parse_pricing(_expect(item.get("pricing"), str | None, "pricing"))
    options = {
        name.lower(): [entry["value"].strip().replace("/", " | ").lower() for entry in entries]
        for name, entries in (item.get("customization_options") or {}).items()
        if entries is not None
    }
    return {
        "asin": item["asin"],
        "name": item["name"],
        "category": item["category"],
        "query": item["query"].lower().strip(),
        "product_category": item["product_category"],
        "Title": item["name"],
        "Description": _expect(item["full_description"], str | None, "full_description") or "",
        "BulletPoints": _texts(bullets if isinstance(bullets, list) else [bullets], "small_description"),
        "Rating": "N.A.",
        "pricing": pricing,
        "Price": price_tag(pricing),
        "options": options,
        "Attributes": [],
    }


def read_attributes(annotation: Mapping[str, Any]) -> list[str]:
    """A product's attributes, or the original's word for none."""
    return _texts(annotation.get("attributes") or ["DUMMY_ATTR"], "attributes")


def draw_price(pricing: list[float], rng: Random) -> float:
    """The price that is charged: a range is settled by one draw."""
    return pricing[0] if len(pricing) == 1 else rng.uniform(*pricing)


def draw_price_bound(price: float, rng: Random) -> tuple[float, str]:
    """A bound above `price` and its words: the larger of two of the next four multiples of ten below 1,000."""
    candidates = [10.0 * step for step in range(1, 100) if 10.0 * step > price][:4]
    if len(candidates) < 2:
        return NO_BOUND, ""
    bound = max(rng.sample(candidates, 2))
    return bound, f", and price lower than {bound:.2f} dollars"


def human_goals(record: Mapping[str, Any], annotations: list[Mapping[str, Any]], price: float, rng: Random):
    """Goals that people wrote for one product; an annotation without attributes gives none."""
    for annotation in _expect(annotations, list, "annotations"):
        if annotation["instruction_attributes"]:
            bound, words = draw_price_bound(price, rng)
            yield make_goal(
                record,
                instruction=_expect(annotation["instruction"], str, "instruction").strip(".") + words,
                attributes=_texts(annotation["instruction_attributes"], "instruction_attributes"),
                options=_texts(annotation["instruction_options"], "instruction_options"),
                bound=bound,
            )


def formula_goals(record: Mapping[str, Any], annotation: Mapping[str, Any], price: float, rng: Random):
    """The original's formulaic goals for one product, one for each combination of its options."""
    attributes = _texts(annotation["instruction_attributes"], "instruction_attributes")
    if not attributes:
        raise ValueError(f"product {record['asin']} has an instruction but no instruction_attributes")
    start = _expect(annotation["instruction"], str, "instruction")
    bound, words = draw_price_bound(price, rng)
    names = sorted(record["options"])
    for values in combinations(*(record["options"][name] for name in names)):
        options = dict(zip(names, values))
        described = ", and ".join(f"{name}: {value}" for name, value in options.items())
        yield make_goal(
            record,
            instruction=start + (f" with {described}" if described else "") + words,
            attributes=attributes,
            options=options,
            bound=bound,
        )


def make_goal(record: Mapping[str, Any], *, instruction: str, attributes, options, bound: float) -> dict[str, Any]:
    """A goal record: find `record`'s kind of product with these attributes and options below this price."""
    return {
        "asin": record["asin"],
        "category": record["category"],
        "query": record["query"],
        "name": record["name"],
        "product_category": record["product_category"],
        "instruction_text": instruction,
        "attributes": attributes,
        "price_upper": bound,
        "goal_options": options,
        "weight": 1.0,
    }


def weigh_by_attribute(goals: list[dict[str, Any]]) -> None:
    """Give each goal the mean over its attributes of 1 / (goals with that attribute)."""
    counts = Counter(attribute for goal in goals for attribute in goal["attributes"])
    for goal in goals:
        goal["weight"] = sum(1 / counts[attribute] for attribute in goal["attributes"]) / len(goal["attributes"])


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Turn what bad data raises into a `ValueError` that begins with `what`."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{what}: {reason}") from error


def _expect(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {value!r:.80}")
    return value


def _texts(values: Any, name: str) -> list[str]:
    return [_expect(value, str, name) for value in _expect(values, list, name)]


def read_json(path: str | Path, kind: type) -> Any:
    """The content of a JSON file of the original, which must be of `kind` (list or dict).

    Raises:
        ValueError: naming the file, if it is missing, not JSON or of another kind.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read WebShop data from {path}: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} holds a JSON {type(content).__name__}, expected a {kind.__name__}")
    return content
