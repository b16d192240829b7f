"""Acceptance and refusal read off free words."""

import time

import pytest

from boost_trl.environments.car_dealer.language import (
    decision_in,
    understand,
)


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


def test_decisions_in_free_words():
    assert decision_in("Deal, but for $38,000.", 40_000, "full") is None
    assert decision_in("I accept $40,000.", 40_000, "full") == "accept"
    assert decision_in("It's a deal!", None, "full") is None
    assert decision_in("That's no deal, goodbye.", 40_000, "full") == "reject"
