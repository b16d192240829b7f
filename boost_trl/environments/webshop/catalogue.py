"""Catalogue of a shop: products, prices, goals and the search index over them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

from ..base import Task
from .records import (
    category_label,
    draw_price,
    formula_goals,
    human_goals,
    make_record,
    naming,
    read_attributes,
    read_json,
    weigh_by_attribute,
)
from .search import SearchIndex


class Catalogue:
    """Products, the price charged for each, goals, and a search index (built on first use).

    Args:
        products (`Sequence[dict]`): product records, see [`~boost_trl.environments.webshop.purchase_reward`], with
            `asin`, `Price`, `Rating`, `options` ({name: [value, …]}) and `category` as well.
        prices (`dict`): asin to price.
        goals (`Sequence[dict]`): goal records with `instruction_text` and `weight`.
        index (`SearchIndex`, *optional*): built from the products if not given.
    """

    def __init__(
        self,
        products: Sequence[Mapping[str, Any]],
        prices: Mapping[str, float],
        goals: Sequence[Mapping[str, Any]],
        index: SearchIndex | None = None,
    ):
        self.products = list(products)
        self.prices = dict(prices)
        self.goals = list(goals)
        self.by_asin = {product["asin"]: product for product in self.products}
        if not self.products or not self.goals:
            raise ValueError(f"a shop needs products and goals, got {len(self.products)} and {len(self.goals)}")
        if index is not None:
            self.index = index

    @cached_property
    def index(self) -> SearchIndex:
        return SearchIndex.build([search_text(product) for product in self.products], list(self.by_asin))

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any product, price or goal; tasks carry it, so that they are not replayed in another shop."""
        content = json.dumps([self.products, self.prices, self.goals], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @cached_property
    def tasks(self) -> list[Task]:
        """One task per goal, in the goals' order."""
        return [
            Task(
                id=f"webshop-{number:05d}",
                category=category_label(goal["product_category"]),
                prompt=goal["instruction_text"],
                data={"goal": number, "asin": goal["asin"], "shop": self.fingerprint},
            )
            for number, goal in enumerate(self.goals)
        ]

    @cached_property
    def tasks_by_id(self) -> dict[str, Task]:
        return {task.id: task for task in self.tasks}

    @cached_property
    def cumulative_weights(self) -> list[float]:
        return list(accumulate(goal["weight"] for goal in self.goals))

    def __deepcopy__(self, memo) -> "Catalogue":
        # Nothing changes a catalogue, so the environments of a batched rollout share one.
        return self

    @classmethod
    def from_webshop(
        cls,
        items: str | Path,
        attributes: str | Path,
        human_instructions: str | Path | None = None,
        *,
        num_products: int | None = None,
        seed: int = 0,
    ) -> "Catalogue":
        """Read the original's data files.

        Goals are in the original's order (its shuffle is fixed), so that its splits by index hold: 0 to 499 test, to
        1499 validation, the rest training. Prices of ranged items and price bounds are drawn from `seed` in the
        original's order: equal to an original whose process called `random.seed(seed)` before loading.

        Args:
            items (`str` or `Path`): `items_shuffle*.json`.
            attributes (`str` or `Path`): `items_ins_v2*.json`.
            human_instructions (`str` or `Path`, *optional*): `items_human_ins.json`; without it the goals are the
                formulaic ones.
            num_products (`int`, *optional*): only the first so many items, at least 1.
            seed (`int`, *optional*, defaults to 0): for prices.

        Raises:
            ValueError: naming the file, and the item, that cannot be used.
        """
        if num_products is not None and num_products < 1:
            raise ValueError(f"`num_products` must be at least 1, got {num_products}")
        annotated = read_json(attributes, dict)
        by_people = read_json(human_instructions, dict) if human_instructions else None
        records: dict[str, dict] = {}
        for number, item in enumerate(read_json(items, list)[:num_products]):
            with naming(f"{items}: item {number} is not a WebShop product"):
                asin = item["asin"]
                if asin == "nan" or len(asin) > 10 or asin in records:
                    continue
                records[asin] = make_record(item)
            with naming(f"{attributes}: what is said of {asin} is no annotation"):
                records[asin]["Attributes"] = read_attributes(annotated.get(asin, {}))
        rng = Random(seed)
        prices = {asin: draw_price(record["pricing"], rng) for asin, record in records.items()}
        goals: list[dict] = []
        for asin, record in records.items():
            if by_people is not None:
                with naming(f"{human_instructions}: what is said of {asin} is no list of annotations"):
                    goals += human_goals(record, by_people.get(asin, []), prices[asin], rng)
            elif annotated.get(asin, {}).get("instruction") is not None:
                with naming(f"{attributes}: what is said of {asin} is no annotation"):
                    goals += formula_goals(record, annotated[asin], prices[asin], rng)
        if by_people is None:
            weigh_by_attribute(goals)
        Random(233).shuffle(goals)
        return cls(list(records.values()), prices, goals)


def search_text(product: Mapping[str, Any]) -> str:
    """Text of a product for the index: title, description, first bullet point and options."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product["options"].items())
    bullets = product["BulletPoints"]
    return " ".join([product["Title"], product["Description"], bullets[0] if bullets else "", options]).lower()
