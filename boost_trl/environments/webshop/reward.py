"""Rewards and score of a purchase: type x (attributes + options + price) / number of requirements.

The rules of the score, oddities included, are those of WebShop (Yao et al., 2022), so that scores are comparable with published ones.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .text import colour_word, fuzzy_equal, title_nouns


# What a purchase in synthetic self-play can be worth, see `synthetic_rules`.
SYNTHETIC_REWARDS = ("rescore", "claimed", "zero")
_GOAL_KEYS = ("name", "query", "product_category", "attributes", "goal_options", "price_upper")
_PRODUCT_KEYS = ("name", "query", "product_category", "Title", "Description", "BulletPoints", "Attributes")


def purchase_reward(
    goal: Mapping[str, Any],
    product: Mapping[str, Any],
    options: Mapping[str, str],
    price: float,
    *,
    nouns: Callable[[str], Sequence[str]] = title_nouns,
) -> dict[str, Any]:
    r"""Score one purchase against the goal.

    $$ r = r_\text{type} \cdot \frac{n_\text{att} + n_\text{opt} + [\text{price} \le \text{bound}]}{|A| + |O| + 1} $$

    Args:
        goal (`dict`): `name`, `query`, `product_category`, `attributes` (list), `goal_options` (list of values, or a
            dict), `price_upper` (0 or less: no bound).
        product (`dict`): `name`, `query`, `product_category`, `Title`, `Description`, `BulletPoints`, `Attributes`.
        options (`dict`): the options chosen, name to value. Only values count.
        price (`float`): what is paid.
        nouns (`Callable`, *optional*): title to its nouns; the default is a rule, see
            [`~boost_trl.environments.webshop.spacy_nouns`] for a tagger.

    Returns:
        `dict`: `reward` in [0, 1], `r_type` (0, .1, .5 or 1), `r_att` and `r_option` (matched shares; `r_option` is
        `None` when the goal has no options) and `r_price` (`bool`).

    Raises:
        ValueError: if a record lacks a key or the goal has no attributes.
    """
    for kind, record, keys in (("goal", goal, _GOAL_KEYS), ("product", product, _PRODUCT_KEYS)):
        missing = [key for key in keys if key not in record]
        if missing:
            raise ValueError(f"the {kind} record lacks {', '.join(missing)}")
    if not goal["attributes"]:
        raise ValueError(f"goal {goal['name']!r} has no attributes; a goal needs at least one")

    attributes, wanted = goal["attributes"], goal["goal_options"]
    matched_attributes = sum(_has_attribute(product, attribute) for attribute in attributes)
    matched_options = _matched_options(options.values(), wanted)
    within_price = goal["price_upper"] <= 0 or bool(price <= goal["price_upper"])
    r_type = type_reward(goal, product, nouns)
    total = matched_attributes + matched_options + within_price
    return {
        "reward": r_type * total / (len(attributes) + len(wanted) + 1),
        "r_type": r_type,
        "r_att": matched_attributes / len(attributes),
        "r_option": matched_options / len(wanted) if wanted else None,
        "r_price": within_price,
    }


def terminal_reward(steps: int, score: float, discount: float) -> float:
    """Reward of the purchase, every other action having none.

    Args:
        steps (`int`): actions, the purchase included.
        score (`float`): `reward` of [`purchase_reward`].
        discount (`float`): per action before the purchase.
    """
    return discount ** (steps - 1) * score


def type_reward(
    goal: Mapping[str, Any], product: Mapping[str, Any], nouns: Callable[[str], Sequence[str]] = title_nouns
) -> float:
    """1 for the same kind of product, .5 for another; no common noun in the titles makes it 0 even in one category."""
    same_query = product["query"] == goal["query"]
    levels = [{level.strip() for level in record["product_category"].split("›")} for record in (product, goal)]
    same_category = len(levels[0] & levels[1]) >= 2
    goal_nouns = nouns(goal["name"])
    # The numerator counts distinct nouns, the denominator repeated ones as well.
    overlap = len(set(nouns(product["name"])) & set(goal_nouns)) / len(goal_nouns) if goal_nouns else 0.2
    if overlap == 0:
        return 0.0
    if overlap < 0.1:
        return 0.1
    return 1.0 if same_query or same_category or overlap > 0.2 else 0.5


def _has_attribute(product: Mapping[str, Any], attribute: str) -> bool:
    # The needle keeps its case while the hay is lower-cased, and a bare string of bullet points is joined character
    # by character: both as in the original.
    return (
        any(fuzzy_equal(str(own), attribute) for own in product["Attributes"])
        or attribute in product["Title"].lower()
        or attribute in " ".join(product["BulletPoints"]).lower()
        or attribute in product["Description"].lower()
    )


def _matched_options(chosen, wanted) -> int:
    chosen = [colour_word(value) for value in chosen]
    # A dict is compared by its printed (name, value) pairs; a pair is a colour only if one half is exactly that word.
    wanted = wanted.items() if isinstance(wanted, Mapping) else wanted
    return sum(any(fuzzy_equal(own, str(colour_word(value))) for own in chosen) for value in wanted)
