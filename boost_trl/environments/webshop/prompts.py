"""Prompts of both roles, from [B] Figure 6."""

from collections.abc import Mapping
from typing import Any


AGENT_PROMPT = """You are playing WebShop. You will see a text view of the current page and must output exactly one \
action per turn.
CRITICAL RULES:
-- search[query]: type a search query of 4--8 words maximum, extracting only core keywords (e.g., "mens tuxedo shirt").
-- You only get ONE search. Once you see search results, choose the best-matching product and use click[].
-- On a product page, click the relevant attribute options and then click[Buy Now].
-- If attributes or price do not match and a better item exists, click[< Prev] to return to results and try the next \
item.
Output only one action per message in the form action[argument]. Nothing else."""

ENVIRONMENT_PROMPT = """You are simulating the WebShop text-based shopping environment. Given the trajectory so far, \
generate the NEXT environment observation.
RULES:
1. After search[query]: return 3 product listings in the format
 [ASIN] \\n Product Name \\n $Price
Include the target product (from goal info) as one of the 3 results.
2. After click[ASIN] on results: return the product detail page with option dropdowns, product name, price, rating, and \
[Buy Now]. Use real option values for the target product.
3. After click[option] on a product page: return "You have clicked {option}."
4. After click[< Prev]: return the most recent search results page.
Output ONLY the observation text. Match exact WebShop formatting."""


def environment_prompt(goal: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    """Figure 6's prompt of the shop with its goal; `goal` and the product that meets it are the catalogue's records."""
    options = "; ".join(f"{name}: {', '.join(values)}" for name, values in target["options"].items())
    return (
        f"{ENVIRONMENT_PROMPT}\n\nGoal info:\nInstruction: {goal['instruction_text']}\n"
        f"Target product: [{target['asin']}] {target['Title']}, {target['Price']}\nOptions: {options or 'none'}"
    )
