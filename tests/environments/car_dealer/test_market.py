"""Buyers and segments."""

import pytest

from boost_trl.environments.car_dealer.market import (
    BRANDS,
    PERSONALITIES,
    SEGMENT_OF,
    SEGMENTS,
    Buyer,
    all_tasks,
    draw_buyer,
    market,
)


@pytest.mark.parametrize("segment", SEGMENTS, ids=lambda segment: segment.name)
def test_buyers_are_as_their_segment_says(segment):
    for index in range(200):
        buyer = draw_buyer(segment.brands[0], index, "small", segment)
        assert buyer.sticker == 100 and buyer.model in segment.types
        for name in ("floor", "reservation", "budget"):
            low, high = getattr(segment, name)
            assert low <= getattr(buyer, name) <= high
        patience = buyer.patience - PERSONALITIES[buyer.personality][0]
        assert buyer.patience == 2 or segment.patience[0] <= patience <= segment.patience[1]
        assert set(buyer.wanted) <= set(segment.features) and set(buyer.wanted) <= set(buyer.equipment)
        assert segment.wanted[0] <= len(buyer.wanted) <= segment.wanted[1] and len(buyer.equipment) == 6


def test_the_full_world_has_the_same_buyers_in_dollars():
    for small, full in zip(all_tasks("small", 3), all_tasks("full", 3)):
        small, full = Buyer.from_dict(small.data), Buyer.from_dict(full.data)
        assert (small.brand, small.wanted, small.patience) == (full.brand, full.wanted, full.patience)
        low, high = SEGMENT_OF[full.brand].sticker
        assert 1000 * low <= full.sticker <= 1000 * high
        for name in ("floor", "reservation", "budget"):
            assert abs(getattr(full, name) - getattr(small, name) * full.sticker / 100) <= 50  # in whole hundreds


def test_a_shifted_market_moves_the_ways_to_bargain_and_not_the_cars():
    assert market(0) == SEGMENT_OF and set(market(2)) == set(BRANDS)
    assert market(1)["Tesla"] is SEGMENT_OF["Hyundai"] and market(5) == market(
        0
    )  # the last segment's neighbour is the first
    for now, then in zip(all_tasks("full", 4), all_tasks("full", 4, shift=1)):
        assert (now.id, now.category) == (then.id, then.category)
        low, high = SEGMENT_OF[now.category].sticker
        assert 1000 * low <= then.data["sticker"] <= 1000 * high


def test_a_buyer_survives_a_row_and_a_broken_one_is_refused():
    buyer = draw_buyer("BMW", 3, "full", SEGMENT_OF["BMW"])
    assert Buyer.from_dict(buyer.to_dict()) == buyer
    with pytest.raises(ValueError, match="with patience; take it from `tasks"):
        Buyer.from_dict({name: value for name, value in buyer.to_dict().items() if name != "patience"})
    with pytest.raises(ValueError, match="unknown brand or personality: 'Fiat'"):
        Buyer.from_dict(buyer.to_dict() | {"brand": "Fiat"})
