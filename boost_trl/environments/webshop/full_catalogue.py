"""Full shop, made up from a seed: products in families of near-duplicates, and goals that one of them meets exactly.

Product number i depends on the seed and on i alone, so a larger shop begins with the products of a smaller one.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from .catalogue import Catalogue
from .full_table import CATEGORIES, Category, Leaf
from .instructions import write_instruction
from .records import draw_price, draw_price_bound, make_goal, price_tag
from .reward import purchase_reward


FAMILY_SIZE = 6
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SYLLABLES = "ba co da el fi ga hu ix jo ka lu mi no or pa qu ri so ta ul va wi xe yo za mer lan tor vik dor".split()
_BULLETS = (
    "{attribute} - designed for everyday use, this {head} keeps its promise",
    "{attribute}: carefully chosen materials make this {head} a pleasure to own",
    "{attribute}. Our {head} was tested by real customers before it was shipped",
    "We made the {head} {attribute} because that is what you asked for",
)
_CLOSING = (
    "If there is any problem please contact us and we will answer within 24 hours",
    "A great gift for birthdays, holidays and anniversaries",
    "Please check the size chart and the pictures before you order",
    "Package includes one {head} and a user guide",
)


def generate_catalogue(seed: int = 0, num_products: int = 10_000, goals_per_category: int = 60) -> Catalogue:
    """Make up a shop.

    Args:
        seed (`int`, *optional*, defaults to 0): everything follows from it, in any process.
        num_products (`int`, *optional*, defaults to 10000): products go round the 37 categories in turn.
        goals_per_category (`int`, *optional*, defaults to 60): each is met exactly (score 1) by its own product.

    Raises:
        ValueError: if there are too few products for the goals.
    """
    if num_products < len(CATEGORIES) * goals_per_category:
        raise ValueError(f"{goals_per_category} goals in {len(CATEGORIES)} categories need as many products each")
    products, attributes = [], {}
    for number in range(num_products):
        product, true_attributes = _make_product(seed, number)
        products.append(product)
        attributes[product["asin"]] = true_attributes
    rng = Random(f"{seed}:prices")
    prices = {product["asin"]: draw_price(product["pricing"], rng) for product in products}
    goals = []
    for first, category in enumerate(CATEGORIES):
        rng = Random(f"{seed}:goals:{category.label}")
        shelf = products[first :: len(CATEGORIES)]
        for product in rng.sample(shelf, goals_per_category):
            goals.append(_make_goal(product, attributes[product["asin"]], prices[product["asin"]], rng))
    Random(f"{seed}:order").shuffle(goals)
    return Catalogue(products, prices, goals)


def _make_product(seed: int, number: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Product `number` and the attributes it truly has (its record lists some, and shows others in text only)."""
    category = CATEGORIES[number % len(CATEGORIES)]
    place = number // len(CATEGORIES)
    leaf = category.leaves[place % len(category.leaves)]
    family = Random(f"{seed}:{category.label}:{leaf.query}:{place // len(category.leaves) // FAMILY_SIZE}")
    rng = Random(f"{seed}:{number}")

    head, attributes, options, price = _make_family(category, leaf, family)
    # What sets the members of a family apart is one attribute, some option values or the price.
    change = rng.choice(("attribute", "options", "price", "all"))
    spare = [attribute for attribute in category.attributes if attribute not in attributes]
    if change in ("attribute", "all") and spare:
        attributes = list(attributes)
        attributes[rng.randrange(len(attributes))] = rng.choice(spare)
    if change in ("options", "all"):
        options = _draw_options(category, rng)
    if change in ("price", "all"):
        price = _draw_price_near(category, rng)
    if rng.random() < 0.5:
        head = rng.choice(leaf.heads)

    pricing = _draw_pricing(price, rng)
    listed, shown = _place_attributes(attributes, rng)
    title = _write_title(_draw_brand(rng), category, leaf, head, attributes, options, rng)
    plain = head.lower()
    bullets = [
        rng.choice(_BULLETS).format(attribute=attribute if rng.random() < 0.5 else attribute.title(), head=plain)
        for attribute in shown["bullets"]
    ]
    bullets.append(rng.choice(_CLOSING).format(head=plain))
    described = ", ".join(attribute for attribute in shown["description"]) or rng.choice(category.uses).lower()
    product = {
        "asin": _make_asin(number, rng),
        "name": title,
        "category": category.coarse,
        "query": leaf.query,
        "product_category": " › ".join((*category.levels, leaf.tail)),
        "Title": title,
        "Description": f"This {plain} is {described}. {rng.choice(_CLOSING).format(head=plain)}.",
        "BulletPoints": bullets,
        "Rating": "N.A.",
        "pricing": pricing,
        "Price": price_tag(pricing),
        "options": options,
        "Attributes": listed,
    }
    return product, tuple(attributes)


def _make_family(category: Category, leaf: Leaf, rng: Random):
    head = rng.choice(leaf.heads)
    attributes = rng.sample(category.attributes, min(rng.randint(3, 5), len(category.attributes)))
    return head, attributes, _draw_options(category, rng), _draw_price_near(category, rng)


def _draw_options(category: Category, rng: Random) -> dict[str, list[str]]:
    options = {}
    for name, pool in category.options.items():
        if rng.random() < 0.85:
            chosen = set(rng.sample(range(len(pool)), min(len(pool), rng.choice((1, 2, 3, 4, 4, 5, 6, 8)))))
            options[name] = [value for at, value in enumerate(pool) if at in chosen]
    return options


def _draw_price_near(category: Category, rng: Random) -> float:
    low, high = category.price
    return low * (high / low) ** rng.betavariate(1.6, 2.4)


def _draw_pricing(price: float, rng: Random) -> list[float]:
    kind = rng.random()
    if kind < 0.05:
        return [100.0]
    cents = rng.choice((0.99, 0.95, 0.49, 0.0, round(rng.random(), 2)))
    low = round(max(int(price), 1) + cents, 2)
    return [low, round(low * rng.uniform(1.1, 1.8), 2)] if kind < 0.2 else [low]


def _place_attributes(attributes: Sequence[str], rng: Random) -> tuple[list[str], dict[str, list[str]]]:
    """Attributes that the record lists, and those that its bullets and description name."""
    listed, bullets, description = [], [], []
    dummy = rng.random() < 0.08
    for attribute in attributes:
        place = rng.random()
        if dummy or place < 0.25:
            bullets.append(attribute)
        elif place < 0.35:
            description.append(attribute)
        else:
            listed.append(_vary(attribute) if rng.random() < 0.15 else attribute)
            if rng.random() < 0.5:
                bullets.append(attribute)
    return listed or ["DUMMY_ATTR"], {"bullets": bullets, "description": description}


def _vary(attribute: str) -> str:
    return attribute.replace("easy ", "easy to ") if attribute.startswith("easy ") else attribute.replace(" ", "-")


def _draw_brand(rng: Random) -> str:
    brand = "".join(rng.choice(_SYLLABLES) for _ in range(rng.choice((2, 2, 3))))
    return brand.upper() if rng.random() < 0.3 else brand.capitalize()


def _write_title(brand, category: Category, leaf: Leaf, head, attributes, options, rng: Random) -> str:
    front = rng.sample(attributes, rng.choice((0, 1, 1, 2, 2)))
    back = [attribute for attribute in attributes if attribute not in front]
    parts = [brand, *(attribute.title() for attribute in front), head]
    if rng.random() < 0.6:
        parts.append(rng.choice([other for other in leaf.heads if other != head]))
    if back and rng.random() < 0.6:
        parts.append("with " + rng.choice(back).title())
    uses = rng.sample(category.uses, len(category.uses))
    parts += [uses.pop() for _ in range(rng.choice((1, 1, 2, 3)))]
    while len(" ".join(parts).split()) < 8 and uses:
        parts.append(uses.pop())
    if options and rng.random() < 0.4:
        values = options[rng.choice(list(options))]
        parts.append("- " + rng.choice(values).title())
    return " ".join(parts)


def _make_asin(number: int, rng: Random) -> str:
    tail = ""
    for _ in range(4):
        number, digit = divmod(number, len(_DIGITS))
        tail = _DIGITS[digit] + tail
    return "B0" + "".join(rng.choice(_DIGITS) for _ in range(4)) + tail


def _make_goal(product: dict[str, Any], attributes: Sequence[str], price: float, rng: Random) -> dict[str, Any]:
    chosen = {name: rng.choice(values) for name, values in product["options"].items() if rng.random() < 0.75}
    # Nearly everything of its kind would meet a single wish.
    counts = (1, 1, 2, 2, 3) if chosen else (2, 2, 3)
    wanted = rng.sample(attributes, min(len(attributes), rng.choice(counts)))
    bound, words = draw_price_bound(price, rng)
    goal = make_goal(
        product,
        instruction=write_instruction(product, wanted, chosen, rng) + words,
        attributes=wanted,
        options=list(chosen.values()),
        bound=bound,
    )
    score = purchase_reward(goal, product, chosen, price)["reward"]
    if score != 1.0:
        raise RuntimeError(f"the generated goal {goal['instruction_text']!r} is not met by its own product ({score})")
    return goal
