"""Scripted sellers of different quality. Each is a policy: it sees the conversation only, nothing that is hidden."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from .bargaining import Move
from .language import Phrasing, Sheet, features_in, read_sheet, understand
from .market import BRANDS, FEATURES, Segment, market
from .prices import prices_in


@dataclass(frozen=True)
class View:
    """What a seller knows at its turn; prices in the world's unit.

    Args:
        sheet (`Sheet`): brand, sticker and minimum price.
        turn (`int`): own turns so far.
        price (`int`, *optional*): the last own offer.
        counter (`int`, *optional*): the buyer's last counter-offer.
        wishes (`tuple[str, ...]`): features the buyer asked for, not pitched yet.
        asked (`bool`): the buyer was asked what they want.
        unit (`int`): what prices are rounded to.
        segment (`str`): how the seller believes that buyers of the brand bargain.
    """

    sheet: Sheet
    turn: int
    price: int | None
    counter: int | None
    wishes: tuple[str, ...]
    asked: bool
    unit: int
    segment: str

    @classmethod
    def of(cls, conversation: Sequence[dict[str, str]], world: str, segment_of: Mapping[str, Segment]) -> "View":
        turns = [message for message in conversation if message["role"] != "system"]
        said = [understand(message["content"], world) for message in turns if message["role"] == "assistant"]
        heard = [message["content"] for message in turns if message["role"] != "assistant"]
        # In the full world, the first observation lists the equipment; in the small one it announces a wish.
        wished = heard[1:] if world == "full" else heard
        pitched = {feature for move in said for feature in move.features}
        offers = [move.price for move in said if move.price is not None]
        counters = [price for text in heard[1:] for price in prices_in(text, world)]
        sheet = read_sheet(heard[0], world)
        return cls(
            sheet=sheet,
            turn=len(said),
            price=offers[-1] if offers else None,
            counter=counters[-1] if counters else None,
            wishes=tuple(dict.fromkeys(f for text in wished for f in features_in(text) if f not in pitched)),
            asked=any(move.asks for move in said),
            unit=100 if world == "full" else 1,
            segment=segment_of[sheet.brand].name,
        )

    def percent(self, percent: float) -> int:
        """A price in percent of the sticker price, rounded to the unit and within the dealer's limits."""
        price = round(percent * self.sheet.sticker / 100 / self.unit) * self.unit
        return min(max(price, self.sheet.floor), self.sheet.sticker)

    def lower(self, percent: float) -> int:
        """The last offer less `percent` of the sticker price."""
        return self.percent(100 * self.price / self.sheet.sticker - percent)

    @property
    def takes(self) -> Move | None:
        """Agreement, if the buyer's counter-offer is allowed."""
        if self.counter is not None and self.counter >= self.sheet.floor:
            return Move(takes_counter=True)
        return None


def anchor_high_slow(view: View, rng: random.Random) -> Move:
    """Opens at the sticker price and comes down by small steps; takes a counter-offer from the third turn on."""
    if view.price is None:
        return Move(price=view.percent(rng.choice((98, 100))))
    if view.turn >= 2 and view.takes:
        return view.takes
    return Move(price=view.lower(rng.choice((2, 3))))


def quick_discounter(view: View, rng: random.Random) -> Move:
    """Gives away what it can: a big step in every turn, and any counter-offer that the dealer allows."""
    if view.price is None:
        return Move(price=view.percent(rng.choice((96, 98))))
    return view.takes or Move(price=view.lower(rng.choice((6, 8))))


def feature_matcher(view: View, rng: random.Random) -> Move:
    """Asks first, pitches what was wished for, quotes a price then, and takes what the dealer allows."""
    if not view.asked:
        return Move(asks=True, brands=(view.sheet.brand,) if rng.random() < 0.5 else ())
    if view.price is None:
        return Move(features=view.wishes, price=view.percent(rng.choice((94, 96))))
    return view.takes or Move(price=view.lower(2))


def stubborn(view: View, rng: random.Random) -> Move:
    """Names one price and holds it, whatever comes."""
    return Move(price=view.price or view.percent(rng.choice((96.4, 97, 98))))


def rambler(view: View, rng: random.Random) -> Move:
    """Talks of other makes and of features that nobody asked for; a price now and then."""
    brands = (rng.choice(BRANDS),) if rng.random() < 0.4 else ()
    features = tuple(rng.sample(FEATURES, rng.randint(0, 2)))
    price = view.percent(rng.randint(85, 100)) if rng.random() < 0.5 else None
    return Move(brands=brands, features=features, price=price)


def noise(view: View, rng: random.Random) -> Move:
    """Any move at all, void offers included."""
    return replace(
        rambler(view, rng),
        asks=rng.random() < 0.2,
        price=view.unit * rng.randint(60, 110) * view.sheet.sticker // 100 // view.unit
        if rng.random() < 0.6
        else None,
    )


def expert(view: View, rng: random.Random) -> Move:
    """Knows how each brand's buyers bargain, and sells accordingly."""
    brand, segment = view.sheet.brand, view.segment
    # A model trained from zero cannot name a brand that it was never shown selling.
    opening = Move(brands=(brand,) if view.unit > 1 else (), features=view.wishes, asks=not view.asked)
    if view.takes and segment != "luxury":
        return view.takes
    if segment == "economy":
        if view.price is None:
            return replace(opening, asks=False, price=view.percent(98))
        return Move(price=view.lower(7))
    if segment == "mainstream":
        if view.price is None:
            return replace(opening, price=view.percent(98))
        return Move(features=view.wishes, price=view.lower(3.5))
    if segment == "premium":
        if view.price is None:
            return replace(opening, price=view.percent(97))
        return Move(features=view.wishes, price=view.lower(4))
    if segment == "luxury":
        if view.price is None:
            return replace(opening, price=view.percent(96.4))
        return view.takes or Move(features=view.wishes, price=view.price)
    if view.price is None:
        return replace(opening, price=view.percent(96.4))
    return Move(features=view.wishes, price=view.price)


SELLERS: dict[str, Callable[[View, random.Random], Move]] = {
    "expert": expert,
    "anchor_high_slow": anchor_high_slow,
    "quick_discounter": quick_discounter,
    "feature_matcher": feature_matcher,
    "stubborn": stubborn,
    "rambler": rambler,
    "noise": noise,
}


class ScriptedSeller:
    """A scripted seller as a policy; the same conversation and seed always get the same answer.

    Args:
        name (`str`): one of `SELLERS`.
        world (`str`, *optional*, defaults to `"full"`): the environment's world.
        seed (`int`, *optional*, defaults to `0`): of choices and wording.
        slips (`float`, *optional*, defaults to `0.0`): probability that a turn is noise instead.
        market_shift (`int`, *optional*, defaults to `0`): the market that the expert knows, as in
            [`CarDealer.with_changed_market`].

    Raises:
        ValueError: for an unknown name, or `slips` that is no probability.
    """

    def __init__(self, name: str, world: str = "full", seed: int = 0, slips: float = 0.0, market_shift: int = 0):
        if name not in SELLERS:
            raise ValueError(f"no scripted seller is called {name!r}; there are {', '.join(SELLERS)}")
        if not 0 <= slips <= 1:
            raise ValueError(f"`slips` is a probability, from 0 to 1, not {slips}")
        self.name = name
        self.world = world
        self.seed = seed
        self.slips = slips
        self._segment_of = market(market_shift)

    def __call__(self, conversations: Sequence[Sequence[dict[str, str]]]) -> list[str]:
        return [self._answer(conversation) for conversation in conversations]

    def _answer(self, conversation: Sequence[dict[str, str]]) -> str:
        rng = random.Random(f"{self.seed}:{self.name}:" + "\n".join(message["content"] for message in conversation))
        view = View.of(conversation, self.world, self._segment_of)
        seller = SELLERS["noise" if rng.random() < self.slips else self.name]
        small_talk = self.name in ("rambler", "noise") and rng.random() < 0.5
        return Phrasing(self.world, rng).utterance(seller(view, rng), small_talk)
