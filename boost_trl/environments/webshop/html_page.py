"""Reading a page of the original's site: its visible text, and where its buttons, products and options lead."""

import json
from ast import literal_eval
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from .pages import Node, Page


_HIDDEN = {"style", "script", "head", "title", "meta"}
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Link(NamedTuple):
    """Target of a click; forms are sent with POST."""

    target: str
    post: bool


@dataclass
class HtmlPage:
    """A page of the site: its nodes, the links behind them by name, and after a purchase the score."""

    nodes: tuple[Node, ...]
    links: dict[str, Link]
    score: float | None
    details: dict[str, Any]

    def as_page(self, kind: str, options: Mapping[str, str]) -> Page:
        """The page as one of ours; `options` are those chosen so far."""
        return Page(kind, self.nodes, json.dumps(options) if kind == "item" else "")


def read_html(html: str) -> HtmlPage:
    """Parse a page of the site.

    Raises:
        ValueError: if it is no page of WebShop.
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    reader.flush()
    texts = [node.text for node in reader.nodes]
    if not any(text.startswith(("Instruction:", "Thank you for shopping")) for text in texts):
        raise ValueError(f"this is no page of WebShop, it has no instruction: {' '.join(texts)[:200]!r}")
    score = _after(texts, "Your score")
    details = _literal(_after(texts, "Reward Details") or "")
    return HtmlPage(
        nodes=tuple(reader.nodes),
        links=reader.links,
        score=None if score is None else float(score),
        details=details if isinstance(details, dict) else {},
    )


def read_address(url: str) -> tuple[str, dict[str, str]]:
    """Kind of page and chosen options, by the site's addresses."""
    parts = [unquote(part) for part in urlsplit(url).path.strip("/").split("/")]
    if "search_results" in parts:
        return "results", {}
    if not {"item_page", "item_sub_page", "done"} & set(parts):
        return "index", {}
    options = _literal(parts[-1])
    kind = "item" if "item_page" in parts else "done" if "done" in parts else parts[-2].lower()
    return kind, options if isinstance(options, dict) else {}


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.nodes: list[Node] = []
        self.links: dict[str, Link] = {}
        self._open: list[tuple[str, dict[str, str]]] = []
        self._radios: dict[str, dict[str, str]] = {}
        self._text = ""

    def handle_starttag(self, tag, attrs):
        self.flush()
        attributes = {name: value or "" for name, value in attrs}
        if tag == "input" and attributes.get("type") == "radio":
            self._radios[attributes.get("id", "")] = attributes
        if tag not in _VOID:
            self._open.append((tag, attributes))

    def handle_endtag(self, tag):
        self.flush()
        for depth in range(len(self._open) - 1, -1, -1):
            if self._open[depth][0] == tag:
                del self._open[depth:]
                break

    def handle_comment(self, data):
        self.flush()

    def handle_data(self, data):
        self._text += data

    def flush(self) -> None:
        """End the current text node. Blank ones are dropped if they break the line, else become one space."""
        text, self._text = self._text, ""
        if not text or not self._open or any(tag in _HIDDEN for tag, _ in self._open):
            return
        if not text.strip():
            if "\n" in text:
                return
            text = " "
        tag, attributes = self._open[-1]
        classes = attributes.get("class", "").split()
        if tag == "button":
            self._add_button(text)
        elif tag == "label" and attributes.get("for") in self._radios:
            radio = self._radios[attributes["for"]]
            self.nodes.append(Node(text, "option", radio.get("name", "").lower()))
            self.links[text] = Link(radio.get("data-url", ""), post=False)
        elif tag == "a" and classes == ["product-link"]:
            self.nodes.append(Node(text, "asin"))
            self.links[text.lower()] = Link(attributes.get("href", ""), post=False)
        else:
            self.nodes.append(Node(text))

    def _add_button(self, text: str) -> None:
        self.nodes.append(Node(text, "button"))
        action = next((attributes.get("action") for tag, attributes in reversed(self._open) if tag == "form"), None)
        self.links[text.lower()] = Link(action or "", post=True)


def _after(texts: list[str], label: str) -> str | None:
    return next((texts[at + 1] for at in range(len(texts) - 1) if texts[at].startswith(label)), None)


def _literal(text: str):
    try:
        return literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return None
