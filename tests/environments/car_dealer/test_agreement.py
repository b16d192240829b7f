"""Acceptance and refusal read off free words: one text for each rule, against a standing offer of $40,000."""

import time

import pytest

from boost_trl.environments.car_dealer.language import decision_in, understand


ACCEPTS = {
    "a plain agreement": "It's a deal, my friend.",
    "quotation marks and emphasis say nothing": '**"Done deal!"**',
    "typographic apostrophes are apostrophes": "I\u2019ll happily accept that price.",
    "words that lead up to it": "Then I think you've got yourself a deal at $40,000!",
    "a will to accept": "I am willing to accept $40,000.",
    "a will to take the car or the offer": "$40,000? All right, I will take the deal.",
    "the offer is accepted": "Your offer is accepted.",
    "`agreed` among words that close a sale": "Agreed, it is mine.",
    "`sold` among words that close a sale": "Fine, sold.",
    "`agreed` beside a plain agreement": "Agreed, then we have a deal.",
    "what follows the last `but` counts": "It is more than I wanted, but you have a deal.",
    "some denials are harmless": "Not bad, we have a deal.",
    "a question takes nothing back": "I'll take it for $40,000. When can I pick it up?",
    "the price of its own sentence counts": "I had hoped for $38,000. I accept your offer of $40,000.",
    "an agreement comes before a goodbye": "Deal. Thank you, goodbye!",
}
UNDECIDED = {
    "a lower price is a counter-offer": "Deal at $38,000.",
    "a lower price in another sentence, too": "How about $38,000? Deal!",
    "an unclear price is no agreement": "Deal at $40.000.",
    "a question": "Do we have a deal?",
    "a whole clause has to agree": "Deal with it.",
    "a whole clause, for `sold` too": "I am sold on the leather.",
    "`agreed` agrees to any statement": "The car is nice, agreed.",
    "a condition": "Once the price is right, deal.",
    "a denial": "Not for me, deal.",
    "words that are only quoted": "You want me to say: deal.",
    "a favour asked for before": "Show me the papers, we have a deal.",
    "`then` after a demand": "Lease it to me, then we have a deal.",
    "a condition in the next sentence": "Deal. If you throw in mats.",
    "a restriction in the next sentence": "Deal. But only with new tyres.",
    "a joke, said afterwards": "I accept. Just kidding!",
    "a denial afterwards": "You have a deal. Not!",
    "a quotation, said afterwards": "Deal! Said no one ever.",
    "a goodbye on a condition": "If that is your price, goodbye.",
    "a goodbye in a question": "Goodbye, is it?",
    "a whole clause has to leave": "I am leaving money on the table.",
    "no deal, and a better price asked for": "No deal. Do better.",
    "done, and a price named": "I am done talking; $38,000 is my last word.",
}
REJECTS = {
    "no deal": "No deal.",
    "done": "I'm done here.",
    "what was asked for before does not count": "I asked for a better price. No deal.",
    "walking away": "Sorry, but I'm walking away from this deal.",
    "leaving": "We are leaving now.",
    "going, in a clause of its own": "I can't pay that, so I will walk away.",
    "a goodbye": "Goodbye then.",
    "walking away takes an agreement back": "We have a deal. I am walking away.",
    "`no deal` takes an agreement back": "I accept. Then it is no deal.",
}
CASES = [
    pytest.param(text, decision, id=rule)
    for rules, decision in ((ACCEPTS, "accept"), (UNDECIDED, None), (REJECTS, "reject"))
    for rule, text in rules.items()
]


@pytest.mark.parametrize("text, decision", CASES)
def test_what_plain_words_decide(text, decision):
    assert decision_in(text, 40_000, "full") == decision


def test_without_a_standing_offer_nothing_is_accepted():
    assert decision_in("It's a deal!", None, "full") is None
    assert decision_in("That's no deal, goodbye.", None, "full") == "reject"


def test_sellers_agree_by_the_same_rules():
    assert understand("Agreed, it is mine.", "full").takes_counter
    for text in (UNDECIDED["a whole clause has to agree"], UNDECIDED["a condition"], REJECTS["walking away"]):
        assert not understand(text, "full").takes_counter
    # With a price it is an offer, not an agreement to the buyer's.
    offer = understand("Deal at $40,000.", "full")
    assert offer.price == 40_000 and not offer.takes_counter


def test_long_texts_are_read_at_once():
    start = time.process_time()
    for text in ("- " * 20_000, "deal, " * 20_000, "1," * 20_000, "so then " * 20_000, "$" + "9" * 40_000):
        decision_in(text, 40_000, "full")
    assert time.process_time() - start < 2
