"""The shop's pages, as the text that a reader of the original's HTML sees, in three formats."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple


SUB_PAGES = ("description", "features", "reviews")


class Node(NamedTuple):
    """One visible piece of text; `name` is the option's name where `kind` is "option"."""

    text: str
    kind: Literal["text", "button", "asin", "option"] = "text"
    name: str = ""


@dataclass(frozen=True)
class Page:
    """A rendered page.

    Args:
        kind (`str`): "index", "results", "item", "description", "features", "reviews" or "done".
        nodes (`tuple[Node, ...]`): what is visible, in order.
        url (`str`): path of the original's page; rich text decides by it which options look clicked.
    """

    kind: str
    nodes: tuple[Node, ...]
    url: str = ""

    def clickables(self) -> dict[str, Node]:
        """Nodes that can be clicked, by lower-cased name, buttons and products first; a later name replaces an equal one."""
        buttons = {node.text.lower(): node for node in self.nodes if node.kind in ("button", "asin")}
        return buttons | {node.text: node for node in self.nodes if node.kind == "option"}


def _page(kind: str, nodes: Sequence[Node], url: str = "") -> Page:
    # An HTML parser makes blank text a line break (which readers skip) or, within one line, a single space.
    kept = (node if node.text.strip() else node._replace(text=" ") for node in nodes if _is_visible(node.text))
    return Page(kind, tuple(kept), url)


def _is_visible(text: str) -> bool:
    return bool(text.strip()) or (bool(text) and "\n" not in text)


def _header(instruction: str) -> list[Node]:
    return [Node("Instruction:"), Node(instruction), Node("Back to Search", "button")]


def index_page(instruction: str) -> Page:
    return _page("index", [Node("WebShop"), Node("Instruction: "), Node(instruction), Node("Search", "button")])


def results_page(instruction: str, products: Sequence[Mapping[str, Any]], number: int, total: int, url: str) -> Page:
    nodes = [*_header(instruction), Node(f"Page {number} (Total results: {total})")]
    if number > 1:
        nodes.append(Node("< Prev", "button"))
    nodes.append(Node("Next >", "button"))
    for product in products:
        nodes += [Node(product["asin"], "asin"), Node(product["Title"]), Node(product["Price"])]
    return _page("results", nodes, url)


def item_page(instruction: str, product: Mapping[str, Any], url: str) -> Page:
    nodes = [*_header(instruction), Node("< Prev", "button")]
    for name, values in product["options"].items():
        nodes += [Node(name), *(Node(value, "option", name) for value in values)]
    nodes += [Node(product["Title"]), Node(f"Price: {product['Price']}"), Node(f"Rating: {product['Rating']}")]
    nodes += [Node(text, "button") for text in ("Description", "Features", "Reviews", "Buy Now")]
    return _page("item", nodes, url)


def sub_page(instruction: str, product: Mapping[str, Any], kind: str, url: str) -> Page:
    nodes = [*_header(instruction), Node("< Prev", "button")]
    if kind == "description":
        nodes.append(Node(product["Description"]))
    elif kind == "features":
        nodes += [Node(" " + bullet) for bullet in product["BulletPoints"]]
    return _page(kind, nodes, url)


def done_page(asin: str, options: Mapping[str, str], score: float | None) -> Page:
    """The thank-you page; with a `score` the original's, which shows it."""
    thanks = "Thank you for shopping with us!"
    if score is None:
        return _page("done", [Node(thanks)])
    escaped = json.dumps(dict(options), sort_keys=True)
    for character in "<>&'":
        escaped = escaped.replace(character, f"\\u{ord(character):04x}")
    # Most fields of this page are blank or "None" in the original's text environment.
    texts = [
        thanks,
        "Your code: ",
        "None",
        " (Paste it in your MTurk interface.)",
        "Purchased",
        "asin",
        asin,
        "options",
    ]
    texts += [
        escaped,
        "attrs",
        "None",
        "category",
        "None",
        "query",
        "None",
        "product category",
        "None",
        "Target",
        "asin",
    ]
    texts += ["options", "attrs", "price upper", "instuction text", "category", "product category", "query", "Goal "]
    texts += ["None", "Reward", "Your score (min 0.0, max 1.0)", str(score), "Reward Details ", "None"]
    return _page("done", [Node(text) for text in texts])


def simple_text(page: Page) -> str:
    """All visible text, stripped, joined by " [SEP] "."""
    return " [SEP] ".join(node.text.strip() for node in page.nodes)


def rich_text(page: Page, visited: Sequence[str] | set[str]) -> str:
    """One line per text, buttons marked; a product in `visited` and a chosen option are marked as clicked."""
    lines, clicked = "", ""
    for node in page.nodes:
        if node.kind == "button":
            lines += f"[button] {node.text} [button_]\n"
        elif node.kind == "asin":
            mark = "clicked button" if node.text in visited else "button"
            lines += f"\n[{mark}] {node.text} [{mark}_]\n"
        elif node.kind == "option":
            # A quoted value in the address counts as chosen, whatever put it there: the original's rule.
            chosen = f'"{node.text}"' in page.url
            mark = "clicked button" if chosen else "button"
            clicked = (f"You have clicked {node.text}.\n" if chosen else "") + clicked
            lines += f"  [{mark}] {node.text} [{mark}_]\n"
        else:
            lines += node.text + "\n"
    return clicked + lines


def compact_text(page: Page, options: Mapping[str, str]) -> str:
    """A few words on one line, for small models: products numbered, the instruction on the first page only."""
    nodes = [node for node in page.nodes if node.kind != "button"]
    if page.kind == "index":
        return nodes[2].text
    if page.kind == "done":
        return nodes[0].text
    body = nodes[2:]
    if page.kind == "results":
        rows = [body[start + 1 : start + 4] for start in range(0, len(body) - 1, 3)]
        listed = (f"{rank} {title.text} {price.text}" for rank, (_, title, price) in enumerate(rows, 1))
        return " | ".join(listed) or "nothing found"
    if page.kind != "item":
        return " | ".join(node.text.strip() for node in body) or "nothing here"
    at_title = next(at for at in range(len(body)) if body[at + 1].text.startswith("Price: "))
    lines = [f"{body[at_title].text} {body[at_title + 1].text.removeprefix('Price: ')}"]
    for node in body[:at_title]:
        if node.kind == "text":
            lines.append(f"{node.text}:")
        else:
            lines[-1] += f" [{node.text}]" if options.get(node.name) == node.text else f" {node.text}"
    return " | ".join(lines)
