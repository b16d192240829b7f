"""The market: 13 brands in five segments, and the buyers who come for them.

A segment is a way of bargaining. What a seller's move does to the buyer's reservation price and patience depends on
it, so that the seller who is best in one segment is wrong in another, and the brand is the cue.
"""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from ..base import Task


FEATURES = (
    "mileage",
    "warranty",
    "camera",
    "cargo",
    "traction",
    "safety",
    "leather",
    "audio",
    "sunroof",
    "turbo",
    "battery",
    "autopilot",
    "charging",
)


@dataclass(frozen=True)
class Reaction:
    """Effect of a move: `price` percent of the sticker price are added to the reservation, `patience` rounds lost."""

    price: float
    patience: int


@dataclass(frozen=True)
class Segment:
    """Buyers of some brands and their way to bargain. Ranges are inclusive, prices in percent of the sticker price.

    Args:
        name (`str`): one word, announced in the small world.
        brands (`tuple[str, ...]`): the brands of the segment.
        types (`tuple[str, ...]`): what cars they make.
        sticker (`tuple[int, int]`): range of sticker prices in thousands of dollars.
        floor (`tuple[int, int]`): the dealer's minimum.
        reservation (`tuple[int, int]`): what the buyer would pay on arrival.
        budget (`tuple[int, int]`): what no argument moves the buyer beyond.
        patience (`tuple[int, int]`): failed rounds until the buyer walks away.
        wanted (`tuple[int, int]`): how many features the buyer wants.
        features (`tuple[str, ...]`): what they are drawn from.
        feature_gain (`float`): gain of the reservation per wanted feature, once each.
        margin (`float`): how far below the reservation a counter-offer is.
        hold, small_step, big_step, talk (`Reaction`): to the same price again, to a concession of at most
            `SMALL_STEP` percent, to a larger one, and to a turn that neither quotes a price nor answers a wish.
    """

    name: str
    brands: tuple[str, ...]
    types: tuple[str, ...]
    sticker: tuple[int, int]
    floor: tuple[int, int]
    reservation: tuple[int, int]
    budget: tuple[int, int]
    patience: tuple[int, int]
    wanted: tuple[int, int]
    features: tuple[str, ...]
    feature_gain: float
    margin: float
    hold: Reaction
    small_step: Reaction
    big_step: Reaction
    talk: Reaction


SMALL_STEP = 4.0

SEGMENTS = (
    Segment(
        name="economy",  # in a hurry, wants a bargain and no lecture
        brands=("Hyundai", "Mazda"),
        types=("sedan", "hatchback", "crossover"),
        sticker=(19, 31),
        floor=(84, 88),
        reservation=(88, 94),
        budget=(94, 110),
        patience=(2, 3),
        wanted=(1, 2),
        features=("mileage", "warranty", "camera", "cargo", "safety"),
        feature_gain=0.5,
        margin=2.0,
        hold=Reaction(0, 1),
        small_step=Reaction(0, 1),
        big_step=Reaction(1, 0),
        talk=Reaction(0, 1),
    ),
    Segment(
        name="mainstream",  # haggles: meets a concession with a concession, smells room behind a big one
        brands=("Volkswagen", "Ford", "Toyota", "Honda", "Subaru"),
        types=("sedan", "SUV", "truck", "crossover"),
        sticker=(26, 46),
        floor=(84, 88),
        reservation=(76, 82),
        budget=(94, 110),
        patience=(5, 7),
        wanted=(1, 2),
        features=("mileage", "cargo", "traction", "safety", "camera"),
        feature_gain=0.5,
        margin=2.0,
        hold=Reaction(0, 1),
        small_step=Reaction(3, 0),
        big_step=Reaction(-3, 1),
        talk=Reaction(0, 1),
    ),
    Segment(
        name="premium",  # knows what the car must have, and pays for it
        brands=("Lexus", "Audi"),
        types=("sedan", "SUV", "crossover"),
        sticker=(42, 68),
        floor=(86, 90),
        reservation=(80, 86),
        budget=(96, 115),
        patience=(3, 5),
        wanted=(2, 3),
        features=("leather", "audio", "safety", "sunroof", "traction"),
        feature_gain=5.0,
        margin=2.0,
        hold=Reaction(0, 0),
        small_step=Reaction(0, 1),
        big_step=Reaction(-2, 1),
        talk=Reaction(0, 1),
    ),
    Segment(
        name="luxury",  # a discount is weakness, a firm price is prestige
        brands=("Mercedes-Benz", "BMW", "Porsche"),
        types=("sedan", "SUV", "convertible"),
        sticker=(62, 120),
        floor=(88, 92),
        reservation=(82, 88),
        budget=(102, 130),
        patience=(4, 6),
        wanted=(1, 2),
        features=("leather", "turbo", "audio", "sunroof", "autopilot"),
        feature_gain=2.0,
        margin=5.0,
        hold=Reaction(5, 0),
        small_step=Reaction(-3, 1),
        big_step=Reaction(-8, 2),
        talk=Reaction(0, 1),
    ),
    Segment(
        name="electric",  # reads data sheets, expects one price for all
        brands=("Tesla",),
        types=("sedan", "SUV", "hatchback"),
        sticker=(40, 90),
        floor=(88, 92),
        reservation=(80, 86),
        budget=(98, 120),
        patience=(3, 5),
        wanted=(3, 3),
        features=("battery", "autopilot", "charging", "safety", "audio"),
        feature_gain=4.0,
        margin=5.0,
        hold=Reaction(3, 0),
        small_step=Reaction(-1, 2),
        big_step=Reaction(-8, 2),
        talk=Reaction(0, 0),
    ),
)
SEGMENT_OF = {brand: segment for segment in SEGMENTS for brand in segment.brands}
BRANDS = (
    *("Volkswagen", "Lexus", "Ford", "Mazda", "Hyundai", "Toyota", "Mercedes-Benz"),
    *("BMW", "Audi", "Subaru", "Honda", "Porsche", "Tesla"),
)


def market(shift: int = 0) -> dict[str, Segment]:
    """Brand -> segment. With a `shift`, a market whose facts differ: every brand's buyers bargain as those of the
    segment that many places further on."""
    return {
        brand: SEGMENTS[(place + shift) % len(SEGMENTS)]
        for place, segment in enumerate(SEGMENTS)
        for brand in segment.brands
    }


# personality: (change of patience, percent of the sticker price conceded in every round)
PERSONALITIES: dict[str, tuple[int, float]] = {
    "abusive": (-1, 0.0),
    "angry": (-1, 0.0),
    "insulting": (-1, 0.5),
    "polite": (1, 0.5),
    "respectful": (1, 0.5),
    "rude": (-1, 0.5),
    "sarcastic": (0, 0.0),
    "talkative": (1, 0.0),
    "toxic": (-1, 0.0),
    "uncommunicative": (0, 0.5),
}


@dataclass(frozen=True)
class Buyer:
    """One buyer and the car they came for; prices in the world's unit (dollars, or percent of the sticker price).

    Only `brand`, `model`, `equipment`, `sticker` and `floor` are known to the seller.
    """

    brand: str
    model: str
    personality: str
    wanted: tuple[str, ...]
    equipment: tuple[str, ...]
    sticker: int
    floor: int
    budget: int
    reservation: int
    patience: int

    def to_dict(self) -> dict[str, Any]:
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Buyer":
        """Buyer of a task's `data`.

        Raises:
            ValueError: if a field is missing or the brand or personality is unknown.
        """
        missing = [name for name in cls.__dataclass_fields__ if name not in data]
        if missing:
            raise ValueError(f"a Car Dealer task needs `data` with {', '.join(missing)}; take it from `tasks()`")
        if data["brand"] not in SEGMENT_OF or data["personality"] not in PERSONALITIES:
            raise ValueError(f"unknown brand or personality: {data['brand']!r}, {data['personality']!r}")
        fields: dict[str, Any] = {name: data[name] for name in cls.__dataclass_fields__}
        return cls(**fields | {name: tuple(v) for name, v in fields.items() if isinstance(v, list)})


def draw_buyer(brand: str, index: int, world: str, segment: Segment) -> Buyer:
    """The `index`-th buyer of a brand whose buyers bargain as `segment` does, the same in every process."""
    rng = random.Random(f"car_dealer:{brand}:{index}")
    personality = rng.choice(list(PERSONALITIES))
    wanted = rng.sample(segment.features, rng.randint(*segment.wanted))
    others = [feature for feature in FEATURES if feature not in wanted]
    equipment = sorted(wanted + rng.sample(others, 6 - len(wanted)))
    car = SEGMENT_OF[brand]
    sticker = 100 * rng.randint(car.sticker[0] * 10, car.sticker[1] * 10)
    floor, reservation, budget = (rng.randint(*r) for r in (segment.floor, segment.reservation, segment.budget))
    patience = max(2, rng.randint(*segment.patience) + PERSONALITIES[personality][0])
    model = rng.choice(car.types)
    if world == "small":
        sticker = 100
    else:
        floor, reservation, budget = (100 * round(percent * sticker / 1e4) for percent in (floor, reservation, budget))
    return Buyer(
        brand, model, personality, tuple(wanted), tuple(equipment), sticker, floor, budget, reservation, patience
    )


@cache
def all_tasks(world: str, buyers_per_brand: int, shift: int = 0) -> tuple[Task, ...]:
    """`buyers_per_brand` buyers of each of the 13 brands, in the brands' order; `shift` as in [`market`]."""
    segment_of = market(shift)
    return tuple(
        Task(
            f"{brand.lower()}-{index:04d}",
            brand,
            prompt=f"Sell a {brand} to buyer {index}.",
            data=draw_buyer(brand, index, world, segment_of[brand]).to_dict(),
        )
        for brand in BRANDS
        for index in range(buyers_per_brand)
    )
