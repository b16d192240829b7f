"""Rule-based buyer: reservation price, patience and replies, given the utterances as understood."""

from dataclasses import dataclass

from .market import PERSONALITIES, SMALL_STEP, Buyer, Reaction, Segment


# Nobody takes the first price: it caps what the car is believed to be worth, and only holding it lifts the cap.
# So opening at the dealer's minimum, which a seller could do without any skill, closes no deal.
ANCHOR = 0.97
RIGHT_BRAND_GAIN = 1.0
RAISE = Reaction(-3.0, 1)


@dataclass(frozen=True)
class Move:
    """A seller's utterance as the buyer understands it.

    Args:
        price (`int`, *optional*): the last price named, in the world's unit.
        brands, features (`tuple[str, ...]`): brands and features named.
        asks (`bool`): asks what the buyer wants.
        takes_counter (`bool`): agrees without naming a price, that is, to the buyer's last counter-offer.
        unclear (`bool`): the last price named cannot be read with certainty, so there is no offer.
    """

    price: int | None = None
    brands: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    asks: bool = False
    takes_counter: bool = False
    unclear: bool = False


@dataclass(frozen=True)
class Reply:
    """The buyer's answer.

    Args:
        acts (`tuple[str, ...]`): what is said, in order: keys of the phrase tables.
        price (`int`, *optional*): the counter-offer, or the price agreed on.
        decision (`str`, *optional*): `"accept"`, `"reject"`, or `None` while the talk goes on.
    """

    acts: tuple[str, ...]
    price: int | None = None
    decision: str | None = None


def void_reason(move: Move, counter: int | None, floor: int, sticker: int) -> str | None:
    """The reason that the seller's offer does not count: `"below_floor"`, `"above_sticker"`, `"nothing_to_take"`,
    `"unclear_price"`, or `None`."""
    if move.unclear:
        return "unclear_price"
    price = move.price
    if price is None and move.takes_counter:
        if counter is None:
            return "nothing_to_take"
        price = counter
    if price is None:
        return None
    if price < floor:
        return "below_floor"
    return "above_sticker" if price > sticker else None


class RuleBasedBuyer:
    """A buyer in one negotiation; deterministic, it draws nothing.

    Args:
        buyer (`Buyer`): who it is.
        unit (`int`): what counter-offers are rounded down to.
        segment (`Segment`): how the buyers of this brand bargain.

    Attributes:
        reservation (`float`): what the buyer would pay now; never beyond the budget.
        patience (`int`): failed rounds left; the buyer walks away below zero.
        counter (`int` or `None`): the last counter-offer, which stands until the next one.
    """

    def __init__(self, buyer: Buyer, unit: int, segment: Segment):
        self.buyer = buyer
        self.unit = unit
        self.segment = segment
        self.reservation = float(min(buyer.reservation, buyer.budget))
        self.patience = buyer.patience
        self.counter: int | None = None
        self._last_price: int | None = None
        self._ceiling = float(buyer.budget)
        self._told_wishes = False
        self._brand_named = False
        self._convinced_by: set[str] = set()

    def respond(self, move: Move) -> Reply:
        """Take in one utterance."""
        acts, gain, lost, useful = self._listen(move)
        void = void_reason(move, self.counter, self.buyer.floor, self.buyer.sticker)
        price = self.counter if move.price is None and move.takes_counter else move.price
        offer = None if void else price
        if offer is not None and self.counter is not None and offer <= self.counter:
            return Reply(("accept",), offer, "accept")  # taking a standing counter-offer is no concession
        reaction = Reaction(0, 0)
        if void:
            reaction = Reaction(0, 1)
        elif offer is not None:
            reaction = self._reaction_to(offer)
        elif not useful:
            reaction = self.segment.talk

        change = gain + reaction.price
        ceiling = min(self.buyer.budget, self._ceiling)
        self.reservation = min(self.reservation + change * self.buyer.sticker / 100, ceiling)
        if change > 1.0:
            acts.insert(0, "pleased")
        elif reaction.price < 0:
            acts.insert(0, "wary")
        if offer is not None and self._takes(offer):
            return Reply(("accept",), offer, "accept")

        self.patience -= lost + reaction.patience + (offer is not None)
        if self.patience < 0:
            return Reply(("leave",), None, "reject")
        if void:
            return Reply((*acts, void))
        if offer is None:
            return Reply((*acts, "ask_price"))
        bid = min(self.reservation - self.segment.margin * self.buyer.sticker / 100, offer - self.unit)
        self.counter = int(bid // self.unit) * self.unit
        return Reply((*acts, "counter"), self.counter)

    def _listen(self, move: Move) -> tuple[list[str], float, int, bool]:
        """Brands, features and questions of an utterance: (acts in answer, gain of the reservation in percent of the
        sticker price, rounds of patience lost, whether anything was new and wanted)."""
        acts: list[str] = []
        gain, lost, useful = PERSONALITIES[self.buyer.personality][1], 0, False
        if any(brand != self.buyer.brand for brand in move.brands):
            lost += 1
            acts.append("wrong_brand")
        elif move.brands and not self._brand_named:
            self._brand_named = useful = True
            gain += RIGHT_BRAND_GAIN
        features, wanted = set(move.features), set(self.buyer.wanted)
        convincing = (features & wanted) - self._convinced_by
        self._convinced_by |= convincing
        useful |= bool(convincing)
        gain += self.segment.feature_gain * len(convincing)
        lost += len(features - wanted)
        if move.asks:
            acts.append("wants")
            useful |= not self._told_wishes
            lost += self._told_wishes
            self._told_wishes = True
        return acts, gain, lost, useful

    def _takes(self, offer: int) -> bool:
        """Whether the buyer pays `offer`. The first one sets what the car is believed to be worth."""
        if self._last_price is None:
            self._ceiling = min(ANCHOR * offer, self.buyer.budget)
            self.reservation = min(self.reservation, self._ceiling)
        self._last_price = offer
        return offer <= self.reservation

    def _reaction_to(self, price: int) -> Reaction:
        """The segment's reaction to the step from the last price; the first price is compared with the sticker."""
        segment, sticker = self.segment, self.buyer.sticker
        if self._last_price is None:
            deep = 100 * (sticker - price) / sticker > SMALL_STEP
            return segment.big_step if deep else Reaction(0, 0)
        step = 100 * (self._last_price - price) / sticker
        if step < 0:
            return RAISE
        if step < 0.5:
            self._ceiling += segment.hold.price * sticker / 100
            return segment.hold
        return segment.small_step if step <= SMALL_STEP else segment.big_step
