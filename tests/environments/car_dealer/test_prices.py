import pytest

from boost_trl.environments.car_dealer.language import (
    understand,
)
from boost_trl.environments.car_dealer.prices import amounts_in, prices_in


@pytest.mark.parametrize(
    "text, prices",
    [
        ("It is $45,000.", [45_000]),
        ("From $52,500 down to $49k!", [52_500, 49_000]),
        ("$12.5k or $ 900", [12_500, 900]),
        ("45,000 miles, 3 owners", []),
        ("$1999.99", [2000]),
        ("25,000 dollars", [25_000]),
        ("$24 thousand, $24.5 K, 26k bucks", [24_000, 24_500, 26_000]),
        ("$30,000, 3 owners; 2 keys", [30_000]),
    ],
)
def test_prices_in_dollars(text, prices):
    assert amounts_in(text, "full") == prices == prices_in(text, "full")


@pytest.mark.parametrize(
    "text",
    ["$24.500", "$24,5000", "$2,45", "$24.5", "$24,500k", "$24m", "$2 million", "$24 500", "$24-25k", "$24'500"]
    + ["24.500 dollars", "$" + "9" * 5000, "$\u00b2 or $30,000.5"],
)
def test_prices_that_may_mean_something_else_are_none(text):
    assert amounts_in(text, "full")[-1:] == [None] and not prices_in(text, "full")
    move = understand(f"It was $40,000. Now {text}", "full")
    assert move.price is None and move.unclear
    assert understand(f"Not {text}: $39,000.", "full").price == 39_000


@pytest.mark.parametrize(
    "text, price, unclear",
    [
        ("price 96", 96, False),
        ("price 96 has 3 features", 96, False),
        ("has leather ; 92", 92, False),
        ("3 owners", None, False),
        ("nice ; 92 ; deal ?", 92, False),
        ("has 3 features", None, False),
        ("price 9600", None, True),
        ("price 96.5", None, True),
        ("price $96", None, True),
    ],
)
def test_prices_of_the_small_world(text, price, unclear):
    move = understand(text, "small")
    assert (move.price, move.unclear) == (price, unclear)
