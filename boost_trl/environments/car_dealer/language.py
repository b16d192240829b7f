"""From words to moves and back, in both worlds.

The full world speaks sentences and dollars. The small world has one short form for every act, a vocabulary of about
110 words (prices are whole percents of the sticker price), and announces segment, minimum price and one wish.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .agreement import acceptance_in, leaves
from .bargaining import Move, Reply
from .market import BRANDS, FEATURES, SEGMENT_OF, Buyer
from .phrases import BUYER, PERSONALITY, SELLER
from .prices import amounts_in


WORLDS = ("full", "small")
# One line, because a language model without chat format ends its turns at the end of the line.
BUYER_SAYS = " Buyer: "
_BRAND_WORDS = {**{brand.lower(): brand for brand in BRANDS}, "mercedes": "Mercedes-Benz", "vw": "Volkswagen"}
_WISH_WORDS = ("want", "need", "looking", "important", "prefer", "matters", "wish")
_SHEET = {
    "full": re.compile(
        r"^Dealer sheet: (?P<brand>\S+) \w+, sticker price \$(?P<sticker>[\d,]+), minimum price \$(?P<floor>[\d,]+)"
    ),
    "small": re.compile(r"^\w+ (?P<brand>\S+) ; minimum (?P<floor>\d+)(?P<sticker>)"),
}
SMALL_FORMS = {
    "counter": "no {price}",
    "ask_price": "price ?",
    "below_floor": "joke",
    "above_sticker": "high",
    "unclear_price": "price ?",
    "nothing_to_take": "what ?",
    "wrong_brand": "not that",
    "pleased": "nice",
    "wary": "hmm",
    "accept": "deal {price}",
    "leave": "bye",
    "wants": "want {features}",
    "brand": "{brand}",
    "pitch": "has {features}",
    "ask": "want ?",
    "price": "price {price}",
    "deal": "deal",
    "small_talk": "weather",
}


def listing(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def features_in(text: str) -> tuple[str, ...]:
    """The features named, in order and once each."""
    words = re.findall(r"[a-z]+", text.lower())
    return tuple(dict.fromkeys(word for word in words if word in FEATURES))


def brands_in(text: str) -> tuple[str, ...]:
    """The brands named, in order and once each."""
    words = re.findall(r"[a-z]+(?:-[a-z]+)?", text.lower())
    return tuple(dict.fromkeys(_BRAND_WORDS[word] for word in words if word in _BRAND_WORDS))


def understand(text: str, world: str) -> Move:
    """Read a seller's utterance. The last price named is the offer."""
    amounts = amounts_in(text, world)
    return Move(
        price=amounts[-1] if amounts else None,
        brands=brands_in(text),
        features=features_in(text),
        asks="?" in text and any(word in text.lower() for word in _WISH_WORDS),
        takes_counter=not amounts and _acceptance(text, world) is not None,
        unclear=bool(amounts) and amounts[-1] is None,
    )


def decision_in(text: str, offer: int | None, world: str) -> str | None:
    """Decision in free words of a buyer: `"accept"` the seller's standing `offer`, `"reject"`, or `None`.

    Naming a lower price with "deal" is a counter-offer, not an agreement. When in doubt, nothing is decided.
    """
    accepted = _acceptance(text, world)
    if accepted is None:
        leaving = re.search(r"\b(?:bye|no deal)\b", text.lower()) if world == "small" else leaves(text)
        return "reject" if leaving else None
    agreed = offer is not None and all(price is not None and price >= offer for price in accepted)
    return "accept" if agreed else None


def _acceptance(text: str, world: str) -> list[int | None] | None:
    """Prices that go with an acceptance, `None` if there is none."""
    if world == "full":
        return acceptance_in(text)
    accepts = re.search(r"\bdeal\b(?! ?\?)", text.lower()) and not re.search(r"\bno(?:t a)? deal\b", text.lower())
    return amounts_in(text, world)[-1:] if accepts else None


@dataclass(frozen=True)
class Sheet:
    """The dealer's sheet in the first observation; prices in the world's unit."""

    brand: str
    sticker: int
    floor: int


def read_sheet(text: str, world: str) -> Sheet:
    """Read a dealer's sheet from the first observation.

    Raises:
        ValueError: if `text` is no first observation of this world.
    """
    match = _SHEET[world].match(text)
    if match is None or not brands_in(match["brand"]):
        raise ValueError(f"no dealer sheet of the {world} world in the first observation: {text[:80]!r}")
    sticker, floor = (int(match[name].replace(",", "") or 100) for name in ("sticker", "floor"))
    return Sheet(brands_in(match["brand"])[0], sticker, floor)


class Phrasing:
    """Puts moves and replies into words.

    Args:
        world (`str`): `"full"` or `"small"`.
        rng (`random.Random`): chooses among the sentences of an act.
    """

    def __init__(self, world: str, rng: random.Random):
        self.world = world
        self.rng = rng

    def price(self, price: int) -> str:
        return f"${price:,}" if self.world == "full" else str(price)

    def _say(self, table: dict[str, tuple[str, ...]], act: str, **fields: str) -> str:
        template = self.rng.choice(table[act]) if self.world == "full" else SMALL_FORMS[act]
        return template.format(**fields)

    def opening(self, buyer: Buyer) -> str:
        """The first observation: the dealer's sheet, and in the full world the buyer's first words."""
        if self.world == "small":
            return f"{SEGMENT_OF[buyer.brand].name} {buyer.brand.lower()} ; minimum {buyer.floor} ; want {buyer.wanted[0]}"
        hello = self._say(BUYER, "opening", brand=buyer.brand, model=buyer.model)
        return (
            f"Dealer sheet: {buyer.brand} {buyer.model}, sticker price {self.price(buyer.sticker)}, minimum price "
            f"{self.price(buyer.floor)}. Equipment: {listing(buyer.equipment)}.{BUYER_SAYS}{self._coloured(buyer, hello)}"
        )

    def reply(self, buyer: Buyer, reply: Reply) -> str:
        """The buyer's words."""
        # The small world keeps wishes and equipment apart by its grammar, so it lists without commas.
        wishes = listing(buyer.wanted) if self.world == "full" else " ".join(buyer.wanted)
        fields = {"brand": buyer.brand, "features": wishes}
        if reply.price is not None:
            fields["price"] = self.price(reply.price)
        parts = [self._say(BUYER, act, **fields) for act in reply.acts]
        return self._coloured(buyer, " ".join(parts)) if self.world == "full" else " ; ".join(parts)

    def _coloured(self, buyer: Buyer, text: str) -> str:
        if self.rng.random() < 0.5:
            return text
        return f"{self.rng.choice(PERSONALITY[buyer.personality])} {text}"

    def utterance(self, move: Move, small_talk: bool = False) -> str:
        """The seller's words for a move."""
        acts = ["small_talk"] * small_talk + ["brand"] * bool(move.brands) + ["pitch"] * bool(move.features)
        acts += ["deal"] * move.takes_counter + ["ask"] * move.asks + ["price"] * (move.price is not None)
        fields = {}
        if move.brands:
            brand = listing(move.brands)
            fields["brand"] = brand if self.world == "full" else brand.lower()
        if move.features:
            fields["features"] = listing(move.features) if self.world == "full" else " ".join(move.features)
        if move.price is not None:
            fields["price"] = self.price(move.price)
        parts = [self._say(SELLER, act, **fields) for act in acts or ["small_talk"]]
        return (" " if self.world == "full" else " ; ").join(parts)
