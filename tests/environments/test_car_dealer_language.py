"""Reading and writing of both worlds' texts."""

import random
import time

import pytest

from boost_trl.environments.car_dealer.bargaining import Move
from boost_trl.environments.car_dealer.environment import CarDealer
from boost_trl.environments.car_dealer.language import (
    Phrasing,
    decision_in,
    read_sheet,
    understand,
)
from boost_trl.environments.car_dealer.phrases import BUYER, PERSONALITY, SELLER
from boost_trl.environments.car_dealer.pretraining import small_vocabulary
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


def test_understand():
    assert understand("This BMW has leather and a turbo. Last price: $80,000? No, $79,500.", "full") == Move(
        price=79_500, brands=("BMW",), features=("leather", "turbo")
    )
    assert understand("A Mercedes? What do you need?", "full") == Move(brands=("Mercedes-Benz",), asks=True)
    assert understand("Agreed, it is yours.", "full") == Move(takes_counter=True)
    for refusal in ("No deal.", "That is not a deal.", "I can't accept.", "I can\u2019t accept."):
        assert understand(refusal, "full") == Move()
    assert understand("Deal at $40,000.", "full") == Move(price=40_000)
    assert understand("tesla ; has battery ; price 94", "small") == Move(94, ("Tesla",), ("battery",))


@pytest.mark.parametrize("world, price", [("full", 41_300), ("small", 94)])
def test_every_wording_is_understood_as_meant(world, price):
    moves = [
        Move(price=price),
        Move(brands=("Volkswagen",)),
        Move(features=("turbo",)),
        Move(features=("camera", "cargo", "safety"), price=price),
        Move(asks=True),
        Move(brands=("Mercedes-Benz",), features=("audio",), asks=True, price=price),
        Move(takes_counter=True),
        Move(),
    ]
    for seed in range(40):
        phrasing = Phrasing(world, random.Random(seed))
        for move in moves:
            text = phrasing.utterance(move, small_talk=not move.takes_counter)
            assert understand(text, world) == move, text


def test_only_the_deciding_phrases_decide():
    for act, phrases in BUYER.items():
        for phrase in phrases:
            text = phrase.format(brand="BMW", model="SUV", price="$40,000", features="audio")
            for colour in ("", *(lead for leads in PERSONALITY.values() for lead in leads)):
                decision = decision_in(f"{colour} {text}", 40_000, "full")
                assert decision == {"accept": "accept", "leave": "reject"}.get(act), text


ACCEPTS = """
Deal!
**Deal at $40,000.**
"You have a deal."
Okay, you've got yourself a deal at $40,000!
Then we have a deal.
I think we have a deal.
It's a deal, my friend.
Done deal.
I accept your offer of $40,000.
I'll happily accept that price.
I am willing to accept $40,000.
I'll take it for $40,000. When can I pick it up?
$40,000? All right, I will take the deal.
Agreed, it is mine.
Fine, sold.
Your offer is accepted.
It is more than I wanted, but you have a deal.
Not bad, we have a deal.
I am done talking, you have a deal at $40,000.
We have a deal and I want it today.
Deal. Thank you, goodbye!
"""
UNDECIDED = """
Deal? You must be joking!
Do we have a deal?
Deal or no deal?
Is that a deal
No deal?
I would accept a lower price, but that is no way near what I can pay.
I'd accept that.
I can't possibly accept $40,000.
I can’t accept.
I don't think we have a deal.
I do not accept it.
No way I accept.
I never said deal.
Not for me, deal.
Price is a deal-breaker.
That is a great deal of money.
Great deal on mats!
What a good deal that would be.
No big deal.
A deal is a deal.
Deal with it.
Sold? Not yet.
I am sold on the leather.
They sold out.
The car is nice, agreed.
Agreed, the leather is nice.
I accept that the car is worth it.
I accept nothing above my budget.
Would you accept a test drive?
If you throw in mats, we have a deal.
You have a deal if you throw in mats.
Deal. If you throw in mats.
Deal. But only with new tyres.
Deal, but for $38,000.
Deal at $38,000.
Throw in mats and we have a deal.
Show me the papers, then we have a deal.
I accept. Just kidding!
You have a deal. Not!
Maybe we have a deal.
We almost have a deal.
Once the price is right, deal.
I am not walking away yet.
Lower it or I am leaving.
If that is your price, goodbye.
I am leaving money on the table.
Should I say goodbye?
You want me to say: deal.
No deal at that price. How about $38,000?
No deal. Do better.
I am done talking; $38,000 is my last word.
You have a deal, or I am leaving.
You have a deal, said the other dealer.
It is a deal, which I refuse.
Deal at $40,000, no thanks.
Deal! Said no one ever.
Deal. In your dreams.
I have a deal at another dealer for $40,000.
I accept your offer of coffee.
By the way, I accept credit cards.
I'll take it you are joking.
Deal at $40.000.
"""
REJECTS = """
That's no deal, goodbye.
No deal.
I'm done here.
Sorry, but I'm walking away from this deal.
Goodbye then.
I can't pay that, so I will walk away.
We are leaving now.
Thanks for your time, but I'll have to walk away.
You have a deal? No, I am walking away.
$40,000 is too much for me. Goodbye!
"""


def sentences(table):
    return table.strip().splitlines()


@pytest.mark.parametrize(
    "text, decision",
    [(text, "accept") for text in sentences(ACCEPTS)]
    + [(text, None) for text in sentences(UNDECIDED)]
    + [(text, "reject") for text in sentences(REJECTS)],
)
def test_what_plain_words_decide(text, decision):
    assert decision_in(text, 40_000, "full") == decision


@pytest.mark.parametrize("text", sentences(UNDECIDED) + sentences(REJECTS))
def test_sellers_do_not_agree_by_accident(text):
    assert not understand(text, "full").takes_counter


def test_long_texts_are_read_at_once():
    start = time.process_time()
    for text in ("- " * 20_000, "deal, " * 20_000, "1," * 20_000, "so then " * 20_000, "$" + "9" * 40_000):
        decision_in(text, 40_000, "full")
    assert time.process_time() - start < 2


def test_sellers_agree_in_plain_words():
    plain = [text for text in sentences(ACCEPTS) if "$" not in text]
    assert len(plain) > 10 and all(understand(text, "full").takes_counter for text in plain)


def test_the_small_world_has_one_word_for_each():
    assert [decision_in(text, 90, "small") for text in ("deal 90", "nice ; deal", "deal ?", "no deal", "bye")] == [
        "accept",
        "accept",
        None,
        "reject",
        "reject",
    ]
    assert decision_in("deal 88", 90, "small") is None


def test_decisions_in_free_words():
    assert decision_in("Deal, but for $38,000.", 40_000, "full") is None
    assert decision_in("I accept $40,000.", 40_000, "full") == "accept"
    assert decision_in("It's a deal!", None, "full") is None
    assert decision_in("That's no deal, goodbye.", 40_000, "full") == "reject"


def test_about_ten_wordings_of_every_act():
    assert all(len(set(phrases)) == 10 for table in (BUYER, SELLER) for phrases in table.values())


@pytest.mark.parametrize("world", ["full", "small"])
def test_the_first_observation_tells_brand_sticker_and_minimum_only(world):
    env = CarDealer(world=world)
    for task in env.tasks()[::7]:
        text, _ = env.reset(seed=0, task=task)
        sheet = read_sheet(text, world)
        assert (sheet.brand, sheet.sticker, sheet.floor) == tuple(task.data[k] for k in ("brand", "sticker", "floor"))
        if world == "full":
            hidden = {f"${task.data[key]:,}" for key in ("budget", "reservation")}
            assert not hidden - {f"${sheet.sticker:,}", f"${sheet.floor:,}"} & set(text.replace(".", " ").split())


def test_read_sheet_of_another_world():
    with pytest.raises(ValueError, match="dealer sheet"):
        read_sheet("Hello.", "full")


def test_small_vocabulary_covers_a_whole_world():
    from boost_trl.environments.car_dealer.offline_data import offline_trajectories

    words = set(small_vocabulary())
    assert len(words) < 130
    env = CarDealer(world="small")
    for row in offline_trajectories(env, n=300, seed=3, slips=0.3):
        for message in row["messages"]:
            assert set(message["content"].split()) <= words, message
