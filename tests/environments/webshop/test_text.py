"""Text rules of the reward, against brute force and the original's own test suite."""

import random
import sys
from types import SimpleNamespace

import pytest

from boost_trl.environments.webshop import spacy_nouns
from boost_trl.environments.webshop.text import COLOURS, colour_word, fuzzy_equal, title_nouns


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", ""),
        ("black forest", "black"),
        ("violet lavender", "lavender"),
        ("steelivy fuchsia", "fuchsia"),
        ("123alabaster", "alabaster"),
        ("webshop", "webshop"),
        ("shredded", "red"),
    ],
)
def test_colour_words(text, word):
    assert colour_word(text) == word


def test_colours_are_tried_in_alphabetical_order():
    assert len(COLOURS) == 102
    assert COLOURS == sorted(COLOURS)


def test_title_nouns():
    title = 'KAIX Women\'s Long-Sleeve T/Shirt with 2 Pockets, (Pack of 3) for the Gym & 24"x36"'
    assert title_nouns(title) == ("kaix", "women", "long", "sleeve", "t", "shirt", "pockets", "pack", "gym")


def longest_common_subsequence(left, right):
    row = [0] * (len(right) + 1)
    for a in left:
        previous = 0
        for at, b in enumerate(right, 1):
            previous, row[at] = row[at], previous + 1 if a == b else max(row[at], row[at - 1])
    return row[-1]


def token_set_ratio(left, right):
    """The definition: the best of three comparisons between common and remaining words, by common subsequence."""

    def ratio(a, b):
        return 100 * 2 * longest_common_subsequence(a, b) / (len(a) + len(b)) if a or b else 100.0

    def words(text):
        return set("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())

    left, right = words(left), words(right)
    if not left or not right:
        return 0
    common = " ".join(sorted(left & right))
    if common and (left <= right or right <= left):
        return 100
    one, other = (" ".join([common, *sorted(rest)]).strip() for rest in (left - right, right - left))
    scores = [ratio(one, other)] + ([ratio(common, one), ratio(common, other)] if common else [])
    return round(max(scores))


def test_fuzzy_equality_by_brute_force():
    rng = random.Random(0)
    words = (
        "easy clean cleaning to machine washable wash queen size x-large xx large 4 ounce oz pack (of 2) red".split()
    )
    verdicts = []
    for _ in range(3000):
        left = " ".join(rng.choices(words, k=rng.randint(1, 4)))
        right = " ".join(rng.choices(words, k=rng.randint(1, 4)))
        if rng.random() < 0.5:
            at = rng.randrange(len(left))
            right = left[:at] + rng.choice(["", "s", "-", "x"]) + left[at + 1 :]
        expected = token_set_ratio(left, right) > 85
        verdicts.append(expected)
        assert fuzzy_equal(left, right) is expected, (left, right)
    assert 300 < sum(verdicts) < 2700


@pytest.mark.parametrize(("left", "right", "equal"), [("café", "caf", True), ("", "", False), ("!!", "!!", False)])
def test_fuzzy_equality_of_odd_text(left, right, equal):
    assert fuzzy_equal(left, right) is equal


def fake_spacy(monkeypatch, load):
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=load))


def test_nouns_by_a_tagger(monkeypatch):
    tags = {"Soft": "ADJ", "Wool": "PROPN", "Hat": "NOUN", "hat": "NOUN"}
    seen = []

    def load(name, exclude):
        def tag(title):
            seen.append(title)
            return [SimpleNamespace(text=word, pos_=tags[word]) for word in title.split()]

        return tag

    fake_spacy(monkeypatch, load)
    nouns = spacy_nouns()
    assert nouns("Soft Wool Hat hat") == nouns("Soft Wool Hat hat") == ("wool", "hat", "hat")
    assert len(seen) == 1


def test_no_tagger(monkeypatch):
    def load(name, exclude):
        raise OSError

    fake_spacy(monkeypatch, load)
    with pytest.raises(ValueError, match="spaCy has no pipeline 'nowhere'"):
        spacy_nouns("nowhere")
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ImportError, match="webshop-spacy"):
        spacy_nouns()
