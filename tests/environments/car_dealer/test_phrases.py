from boost_trl.environments.car_dealer.language import (
    decision_in,
)
from boost_trl.environments.car_dealer.phrases import BUYER, PERSONALITY, SELLER


def test_only_the_deciding_phrases_decide():
    for act, phrases in BUYER.items():
        for phrase in phrases:
            text = phrase.format(brand="BMW", model="SUV", price="$40,000", features="audio")
            for colour in ("", *(lead for leads in PERSONALITY.values() for lead in leads)):
                decision = decision_in(f"{colour} {text}", 40_000, "full")
                assert decision == {"accept": "accept", "leave": "reject"}.get(act), text


def test_about_ten_wordings_of_every_act():
    assert all(len(set(phrases)) == 10 for table in (BUYER, SELLER) for phrases in table.values())
