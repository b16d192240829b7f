"""Porter's own examples."""

import pytest

from boost_trl.environments.webshop.stemmer import porter_stem


@pytest.mark.parametrize(
    ("word", "stem"),
    # Examples of Porter (1980), and the two departures of his own program.
    [
        *[("caresses", "caress"), ("ponies", "poni"), ("ties", "ti"), ("caress", "caress"), ("cats", "cat")],
        *[("feed", "feed"), ("agreed", "agre"), ("plastered", "plaster"), ("bled", "bled"), ("motoring", "motor")],
        *[("sing", "sing"), ("conflated", "conflat"), ("troubled", "troubl"), ("sized", "size"), ("hopping", "hop")],
        *[("tanned", "tan"), ("falling", "fall"), ("hissing", "hiss"), ("fizzed", "fizz"), ("failing", "fail")],
        *[("filing", "file"), ("happy", "happi"), ("sky", "sky"), ("relational", "relat"), ("rational", "ration")],
        *[("digitizer", "digit"), ("radically", "radic"), ("vietnamization", "vietnam"), ("hopefulness", "hope")],
        *[("triplicate", "triplic"), ("formative", "form"), ("electriciti", "electr"), ("goodness", "good")],
        *[("revival", "reviv"), ("allowance", "allow"), ("adjustable", "adjust"), ("replacement", "replac")],
        *[("adoption", "adopt"), ("homologou", "homolog"), ("effective", "effect"), ("bowdlerize", "bowdler")],
        *[("probate", "probat"), ("rate", "rate"), ("cease", "ceas"), ("controll", "control"), ("roll", "roll")],
        *[
            ("possibly", "possibl"),
            ("sociology", "sociolog"),
            ("geology", "geologi"),
            ("is", "is"),
            ("generalizations", "gener"),
        ],
    ],
)
def test_porter(word, stem):
    assert porter_stem(word) == stem
