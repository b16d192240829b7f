"""BM25 as Lucene 8 computes it (k1 0.9, b 0.4, English analysis), small enough to live in memory."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from .stemmer import porter_stem


K1, B = 0.9, 0.4

_STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with".split()
)
# Unicode words: an apostrophe, dot or colon joins letters, and a dot, comma or semicolon joins digits.
_TOKEN = re.compile(r"\w+(?:(?:(?<=[^\W\d_])[:.·'’](?=[^\W\d_])|(?<=\d)[.,;'’](?=\d))\w+)*")
_POSSESSIVE = re.compile("['’＇]s$")


def analyse(text: str) -> list[str]:
    """Tokens of a text: words, possessive dropped, lower-cased, stop words out, Porter-stemmed."""
    words = (_POSSESSIVE.sub("", word.lower()) for word in _TOKEN.findall(text))
    return [porter_stem(word) for word in words if word not in _STOP_WORDS]


def _quantise(length: int) -> int:
    """Document length after Lucene stored it in one byte: exact to 40, then 4 significant bits."""
    free = 24
    if length < free + 16:
        return length
    shift = (length - free).bit_length() - 4
    return free + ((length - free) >> shift << shift)


class SearchIndex:
    """Inverted index with precomputed BM25 impacts.

    idf(t) tf / (tf + k1 (1 - b + b |d| / avg |d|)), idf(t) = ln(1 + (N - n_t + .5) / (n_t + .5)), |d| quantised.

    Args:
        terms (`Sequence[str]`): the vocabulary.
        starts (`np.ndarray`): (len(terms) + 1,), where each term's postings begin.
        documents (`np.ndarray`): document number of every posting.
        impacts (`np.ndarray`): its score contribution, float32.
        ids (`Sequence[str]`): a document's identifier; equal scores are ordered by it.
    """

    def __init__(self, terms, starts, documents, impacts, ids):
        self.terms = list(terms)
        self.starts, self.documents, self.impacts = starts, documents, impacts
        self.ids = list(ids)
        self._row = {term: row for row, term in enumerate(self.terms)}
        self._tie_break = np.empty(len(self.ids), dtype=np.int64)
        self._tie_break[sorted(range(len(self.ids)), key=self.ids.__getitem__)] = np.arange(len(self.ids))

    @classmethod
    def build(cls, texts: Sequence[str], ids: Sequence[str]) -> "SearchIndex":
        """Index `texts`; `ids` are their identifiers."""
        postings: dict[str, list[tuple[int, int]]] = {}
        lengths = np.zeros(len(texts))
        total = 0
        for document, text in enumerate(texts):
            tokens = analyse(text)
            total += len(tokens)
            lengths[document] = _quantise(len(tokens))
            for term, count in Counter(tokens).items():
                postings.setdefault(term, []).append((document, count))
        norms = K1 * (1 - B + B * lengths / max(total / max(len(texts), 1), 1e-9))
        terms = sorted(postings)
        starts = np.cumsum([0, *(len(postings[term]) for term in terms)], dtype=np.int64)
        pairs = np.array([pair for term in terms for pair in postings[term]], dtype=np.int64).reshape(-1, 2)
        documents, counts = pairs[:, 0], pairs[:, 1]
        sizes = np.diff(starts)
        idf = np.log1p((len(texts) - sizes + 0.5) / (sizes + 0.5))
        impacts = np.repeat(idf, sizes) * counts / (counts + norms[documents])
        return cls(terms, starts, documents.astype(np.int32), impacts.astype(np.float32), ids)

    def search(self, query: str, k: int = 50) -> list[str]:
        """Identifiers of the best `k` documents that share a term with `query`, best first."""
        scores = np.zeros(len(self.ids))
        for term, count in Counter(analyse(query)).items():
            row = self._row.get(term)
            if row is not None:
                span = slice(self.starts[row], self.starts[row + 1])
                scores[self.documents[span]] += count * self.impacts[span].astype(np.float64)
        scores = scores.astype(np.float32)
        found = np.flatnonzero(scores)
        if len(found) > k:
            # Ties at the border are decided by identifier, so everything that reaches the k-th score stays in.
            border = np.partition(scores[found], len(found) - k)[len(found) - k]
            found = found[scores[found] >= border]
        best = found[np.lexsort((self._tie_break[found], -scores[found]))][:k]
        return [self.ids[document] for document in best]
