"""The index against hand-worked BM25 and against rankings recorded from Lucene."""

import math
import random

import pytest

from boost_trl.environments.webshop.search import SearchIndex, _quantise, analyse


WORDS = (
    "running shoes women's waterproof 3.5 oz easy-clean knitted sofa relational happily the of u.s.a cable usb-c "
    "x-large adjustable chair chairs generously lamp lamps pack (2) cotton cottons wireless charging stainless steel "
    "don't organic"
).split()


# From Anserini 0.14.3 (Lucene 8, k1 .9, b .4, its English analyzer) over `lucene_documents()`.
LUCENE_RANKING = {
    "women's running shoe": "B033 B146 B029 B137 B026 B030 B174 B051 B194 B024 B093 B173",
    "easy clean sofa": "B155 B156 B048 B110 B081 B181 B145 B035 B030 B074 B016 B011",
    "lamp": "B032 B079 B181 B033 B197 B050 B069 B098 B031 B159 B114 B051",
    "the of": "",
    "cotton chair generous usb": "B032 B173 B033 B035 B194 B158 B020 B153 B144 B145 B185 B164",
    "happy relation stainless steel lamp lamp": "B050 B031 B036 B091 B150 B108 B075 B066 B026 B029 B020 B047",
    "3.5 oz": "B036 B075 B066 B158 B108 B048 B035 B050 B175 B051 B093 B110",
    "u.s.a x-large": "B002 B146 B020 B110 B156 B129 B197 B199 B079 B051 B187 B162",
}


def lucene_documents():
    rng = random.Random(7)
    return {f"B{n:03d}": " ".join(rng.choices(WORDS, k=rng.choice((3, 8, 20, 45, 60, 130)))) for n in range(200)}


@pytest.fixture(scope="module")
def index():
    documents = lucene_documents()
    return SearchIndex.build(list(documents.values()), list(documents))


@pytest.mark.parametrize("query", LUCENE_RANKING)
def test_ranks_as_lucene(index, query):
    assert index.search(query, 12) == LUCENE_RANKING[query].split()


def test_scores_by_hand():
    # "red" is in two of three documents, once and twice; lengths 2, 4 and 1, mean 7/3.
    index = SearchIndex.build(["red hat", "red red blue boot", "sock"], ["a", "b", "c"])
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    expected = [idf * n / (n + 0.9 * (0.6 + 0.4 * length / (7 / 3))) for n, length in ((1, 2), (2, 4))]
    row = index.terms.index("red")
    span = slice(index.starts[row], index.starts[row + 1])
    assert index.impacts[span].tolist() == pytest.approx(expected, rel=1e-6)
    assert index.search("red") == ["b", "a"]
    # "sock" is worth .58 in c; "red" .30 in b and .25 in a, each time that it is asked for.
    assert index.search("sock red") == ["c", "b", "a"]
    assert index.search("sock red red") == ["b", "c", "a"]


def test_equal_scores_are_ordered_by_identifier_also_at_the_border():
    index = SearchIndex.build(["same words"] * 5, ["d", "b", "e", "a", "c"])
    assert index.search("same", 3) == ["a", "b", "c"]


@pytest.mark.parametrize("query", ["", "the of", "unheardof", "?!"])
def test_nothing_found(index, query):
    assert index.search(query) == []


def test_at_most_k(index):
    assert len(index.search("lamp", 50)) == 50
    assert index.search("lamp", 50)[:10] == index.search("lamp", 10)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Women's 3.4 fl oz", ["women", "3.4", "fl", "oz"]),
        ("don't U.S.A. x-large", ["don't", "u.s.a", "x", "larg"]),
        ('16gb | 512gb 24"x36" 1,000', ["16gb", "512gb", "24", "x36", "1,000"]),
        ("The cats and a dog", ["cat", "dog"]),
    ],
)
def test_analysis(text, tokens):
    assert analyse(text) == tokens


def test_lengths_are_kept_in_one_byte():
    assert [_quantise(length) for length in range(41)] == list(range(41))
    assert [_quantise(length) for length in (41, 42, 55, 56, 57, 100, 1000)] == [40, 42, 54, 56, 56, 96, 984]
    assert len({_quantise(length) for length in range(2**20)}) < 256
