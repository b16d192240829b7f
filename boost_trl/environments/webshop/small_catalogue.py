"""Small shop for models trained from scratch on a CPU: short words, short pages, decisions of the same kinds.

Twelve categories with three kinds of product each; attributes, colours and sizes are shared by all. Of a kind, the
products differ in one or two of six attributes, in price, and in the colours and sizes that they come in.
"""

from random import Random

from .catalogue import Catalogue
from .records import make_goal


_KINDS = {
    "Clothing – Men": "shirt jacket belt",
    "Clothing – Women": "dress skirt scarf",
    "Clothing – Shoes": "boot sandal slipper",
    "Home – Kitchen": "kettle pan mug",
    "Home – Bedding": "quilt pillow sheet",
    "Home – Furniture": "chair table shelf",
    "Electronics – Audio": "speaker headset radio",
    "Electronics – Office": "laptop monitor mouse",
    "Sports – Outdoors": "tent rope canoe",
    "Sports – Fitness": "mat bench glove",
    "Beauty – Hair": "comb dryer wig",
    "Garden – Tools": "hose spade rake",
}
_ATTRIBUTES = ("light", "strong", "soft", "warm", "quiet", "round")
_COLOURS = ("red", "blue", "green", "black")
_SIZES = ("small", "medium", "large")
MIN_PRICE, MAX_PRICE = 5, 59
MAX_BOUND = 70
_PRODUCTS_PER_KIND = 8


def generate_small_catalogue(seed: int = 0, goals_per_category: int = 40) -> Catalogue:
    """Make up the toy shop: 288 products, 12 × `goals_per_category` goals, each met exactly by its own product.

    Args:
        seed (`int`, *optional*, defaults to 0): everything follows from it.
        goals_per_category (`int`, *optional*, defaults to 40): goals differ in what is asked of a product.
    """
    rng = Random(f"small:{seed}")
    products, goals = [], []
    for label, kinds in _KINDS.items():
        shelf = [_make_product(label, kind, rng) for kind in kinds.split() for _ in range(_PRODUCTS_PER_KIND)]
        products += shelf
        goals += [_make_goal(rng.choice(shelf), rng) for _ in range(goals_per_category)]
    for number, product in enumerate(products):
        product["asin"] = f"B{number:03d}"
    for goal in goals:
        goal["asin"] = goal.pop("product")["asin"]
    rng.shuffle(goals)
    return Catalogue(products, {product["asin"]: product["pricing"][0] for product in products}, goals)


def _make_product(label: str, kind: str, rng: Random) -> dict:
    attributes = rng.sample(_ATTRIBUTES, rng.choice((1, 2, 2)))
    price = rng.randint(MIN_PRICE, MAX_PRICE)
    options = {"color": rng.sample(_COLOURS, rng.choice((2, 3)))}
    if rng.random() < 0.5:
        options["size"] = rng.sample(_SIZES, 2)
    return {
        "asin": "",
        "name": kind,
        "category": label,
        "query": kind,
        "product_category": label.replace(" – ", " › ") + f" › {kind}",
        "Title": " ".join([*attributes, kind]),
        "Description": "",
        "BulletPoints": [],
        "Rating": "N.A.",
        "pricing": [float(price)],
        "Price": str(price),
        "options": options,
        "Attributes": attributes,
    }


def _make_goal(product: dict, rng: Random) -> dict:
    attributes = rng.sample(product["Attributes"], rng.randint(1, len(product["Attributes"])))
    options = [rng.choice(values) for values in product["options"].values() if rng.random() < 0.8]
    bound = 10.0 * (product["pricing"][0] // 10 + rng.choice((1, 1, 2)))
    words = [*attributes, product["name"], *options, f"under {bound:.0f}"]
    goal = make_goal(product, instruction=" ".join(words), attributes=attributes, options=options, bound=bound)
    return goal | {"product": product}


def compact_vocabulary(catalogue: Catalogue) -> list[str]:
    """Every word that compact pages, scripted policies and valid actions in this shop can hold, for a word tokenizer."""
    texts = ["search click buy now back to search < prev next > description features reviews", "nothing here found"]
    texts += ["Thank you for shopping with us!", "think this one looks right add cart checkout |", *"123456789"]
    texts += [goal["instruction_text"] for goal in catalogue.goals]
    for product in catalogue.products:
        texts += [product["Title"], product["Title"].lower(), product["Price"], product["Description"]]
        texts += product["BulletPoints"]
        for name, values in product["options"].items():
            texts += [f"{name}:", *values, *(f"[{value}]" for value in values)]
    return sorted({word for text in texts for word in text.split()})
