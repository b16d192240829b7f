"""A shop of two hats, for tests worked by hand."""

from boost_trl.environments.webshop import Catalogue


INSTRUCTION = "i need a red hat that is soft, and price lower than 40.00 dollars"


def make_product(asin, title, **changes):
    product = {
        "asin": asin,
        "name": title,
        "category": "fashion",
        "query": "hats",
        "product_category": "Clothing › Men › Hats",
        "Title": title,
        "Description": "Keeps you warm.",
        "BulletPoints": ["soft wool", "machine wash"],
        "Rating": "N.A.",
        "pricing": [12.5],
        "Price": "$12.5",
        "options": {"color": ["red", "blue"], "size": ["small", "large"]},
        "Attributes": ["soft"],
    }
    return product | changes


def make_catalogue(*products):
    goal = {
        "asin": "B000000001",
        "category": "fashion",
        "query": "hats",
        "name": "Warm Hat",
        "product_category": "Clothing › Men › Hats",
        "instruction_text": INSTRUCTION,
        "attributes": ["soft"],
        "price_upper": 40.0,
        "goal_options": ["red"],
        "weight": 1.0,
    }
    products = products or (make_product("B000000001", "Warm Hat"), make_product("B000000002", "Straw Hat & Cap"))
    return Catalogue(products, {product["asin"]: product["pricing"][0] for product in products}, [goal])


def play(shop, *actions):
    for action in actions:
        result = shop.step(action)
    return result
