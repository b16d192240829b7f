"""Scripted policies of different quality. They see the conversation only, nothing that is hidden."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from .bargaining import Move
from .environment import CarDealer
from .language import Phrasing, Sheet, features_in, read_sheet, understand
from .market import BRANDS, FEATURES, Segment, market
from .prices import prices_in


@dataclass(frozen=True)
class Beliefs:
    """Knowledge of a scripted policy at its turn; prices in the world's unit.

    Args:
        sheet (`Sheet`): brand, sticker and minimum price.
        turn (`int`): own turns so far.
        price (`int`, *optional*): the last own offer.
        counter (`int`, *optional*): the buyer's last counter-offer.
        wishes (`tuple[str, ...]`): features the buyer asked for, not pitched yet.
        asked (`bool`): the buyer was asked what they want.
        unit (`int`): what prices are rounded to.
        segment (`str`): how the policy believes that buyers of the brand bargain.
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
    def of(cls, conversation: Sequence[dict[str, str]], world: str, segment_of: Mapping[str, Segment]) -> "Beliefs":
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
        assert self.price is not None, "no offer yet"
        return self.percent(100 * self.price / self.sheet.sticker - percent)

    @property
    def takes(self) -> Move | None:
        """Agreement, if the buyer's counter-offer is allowed."""
        if self.counter is not None and self.counter >= self.sheet.floor:
            return Move(takes_counter=True)
        return None


Strategy = Callable[[Beliefs, random.Random], Move]


def anchor_high_slow(beliefs: Beliefs, rng: random.Random) -> Move:
    """Opens at the sticker price and comes down by small steps; takes a counter-offer from the third turn on."""
    if beliefs.price is None:
        return Move(price=beliefs.percent(rng.choice((98, 100))))
    if beliefs.turn >= 2 and beliefs.takes:
        return beliefs.takes
    return Move(price=beliefs.lower(rng.choice((2, 3))))


def quick_discounter(beliefs: Beliefs, rng: random.Random) -> Move:
    """Gives away what it can: a big step in every turn, and any counter-offer that the dealer allows."""
    if beliefs.price is None:
        return Move(price=beliefs.percent(rng.choice((96, 98))))
    return beliefs.takes or Move(price=beliefs.lower(rng.choice((6, 8))))


def feature_matcher(beliefs: Beliefs, rng: random.Random) -> Move:
    """Asks first, pitches what was wished for, quotes a price then, and takes what the dealer allows."""
    if not beliefs.asked:
        return Move(asks=True, brands=(beliefs.sheet.brand,) if rng.random() < 0.5 else ())
    if beliefs.price is None:
        return Move(features=beliefs.wishes, price=beliefs.percent(rng.choice((94, 96))))
    return beliefs.takes or Move(price=beliefs.lower(2))


def stubborn(beliefs: Beliefs, rng: random.Random) -> Move:
    """Names one price and holds it, whatever comes."""
    return Move(price=beliefs.price or beliefs.percent(rng.choice((96.4, 97, 98))))


def rambler(beliefs: Beliefs, rng: random.Random) -> Move:
    """Talks of other makes and of features that nobody asked for; a price now and then."""
    brands = (rng.choice(BRANDS),) if rng.random() < 0.4 else ()
    features = tuple(rng.sample(FEATURES, rng.randint(0, 2)))
    price = beliefs.percent(rng.randint(85, 100)) if rng.random() < 0.5 else None
    return Move(brands=brands, features=features, price=price)


def noise(beliefs: Beliefs, rng: random.Random) -> Move:
    """Any move at all, void offers included."""
    return replace(
        rambler(beliefs, rng),
        asks=rng.random() < 0.2,
        price=beliefs.unit * rng.randint(60, 110) * beliefs.sheet.sticker // 100 // beliefs.unit
        if rng.random() < 0.6
        else None,
    )


def expert(beliefs: Beliefs, rng: random.Random) -> Move:
    """Knows how each brand's buyers bargain, and sells accordingly."""
    brand, segment = beliefs.sheet.brand, beliefs.segment
    # A model trained from zero cannot name a brand that it was never shown selling.
    opening = Move(brands=(brand,) if beliefs.unit > 1 else (), features=beliefs.wishes, asks=not beliefs.asked)
    if beliefs.takes and segment != "luxury":
        return beliefs.takes
    if segment == "economy":
        if beliefs.price is None:
            return replace(opening, asks=False, price=beliefs.percent(98))
        return Move(price=beliefs.lower(7))
    if segment == "mainstream":
        if beliefs.price is None:
            return replace(opening, price=beliefs.percent(98))
        return Move(features=beliefs.wishes, price=beliefs.lower(3.5))
    if segment == "premium":
        if beliefs.price is None:
            return replace(opening, price=beliefs.percent(97))
        return Move(features=beliefs.wishes, price=beliefs.lower(4))
    if segment == "luxury":
        if beliefs.price is None:
            return replace(opening, price=beliefs.percent(96.4))
        return beliefs.takes or Move(features=beliefs.wishes, price=beliefs.price)
    if beliefs.price is None:
        return replace(opening, price=beliefs.percent(96.4))
    return Move(features=beliefs.wishes, price=beliefs.price)


STRATEGIES: dict[str, Strategy] = {
    "expert": expert,
    "anchor_high_slow": anchor_high_slow,
    "quick_discounter": quick_discounter,
    "feature_matcher": feature_matcher,
    "stubborn": stubborn,
    "rambler": rambler,
    "noise": noise,
}


# Good dialogues are rare, and most of the mediocre ones come from sellers who are right in one segment only.
DEFAULT_MIX = {
    "expert": 0.10,
    "anchor_high_slow": 0.20,
    "quick_discounter": 0.25,
    "feature_matcher": 0.20,
    "stubborn": 0.10,
    "rambler": 0.10,
    "noise": 0.05,
}


class ScriptedPolicy:
    """A scripted policy for `rollout`: `policy(conversations) -> replies`.

    Its random choices depend on `seed` and on the conversation, so that equal conversations get equal replies.

    Args:
        env (`CarDealer`): the game, whose market the expert knows.
        strategy (`str`, *optional*, defaults to `"expert"`): a key of `STRATEGIES`.
        seed (`int`, *optional*, defaults to `0`): of choices and wording.
        slips (`float`, *optional*, defaults to `0.0`): probability that a turn is noise instead.

    Raises:
        ValueError: for an unknown name, or `slips` that is no probability.
    """

    def __init__(self, env: CarDealer, strategy: str = "expert", seed: int = 0, slips: float = 0.0):
        if strategy not in STRATEGIES:
            raise ValueError(f"no scripted policy is called {strategy!r}; there are {', '.join(STRATEGIES)}")
        if not 0 <= slips <= 1:
            raise ValueError(f"`slips` is a probability, from 0 to 1, not {slips}")
        self.strategy = strategy
        self.world = env.world
        self.seed = seed
        self.slips = slips
        self._segment_of = market(env.market_shift)

    def __call__(self, conversations: Sequence[Sequence[dict[str, str]]]) -> list[str]:
        return [self._answer(conversation) for conversation in conversations]

    def _answer(self, conversation: Sequence[dict[str, str]]) -> str:
        rng = random.Random(
            f"{self.seed}:{self.strategy}:" + "\n".join(message["content"] for message in conversation)
        )
        beliefs = Beliefs.of(conversation, self.world, self._segment_of)
        strategy = STRATEGIES["noise" if rng.random() < self.slips else self.strategy]
        small_talk = self.strategy in ("rambler", "noise") and rng.random() < 0.5
        return Phrasing(self.world, rng).utterance(strategy(beliefs, rng), small_talk)
