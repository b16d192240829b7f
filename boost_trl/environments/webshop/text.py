"""Text rules of the shop's reward: fuzzy equality, colour words, and which words of a title are nouns."""

import re
from collections.abc import Callable
from functools import lru_cache


try:
    from rapidfuzz import fuzz, utils
except ImportError as error:
    raise ImportError("WebShop's reward needs rapidfuzz: pip install 'boost_trl[webshop]'") from error


# A user's colour names are reduced to these words, tried in this order, as substrings ("rose red" is "red").
COLOURS = """
alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo
caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal
dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory
ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom
mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire
seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white
wine yellow
""".split()

MATCH_THRESHOLD = 85

_LATIN_1_SUPPLEMENT = re.compile("[\x80-\xff]")
_FUNCTION_WORDS = frozenset(
    """
    a an the and or nor but if of in on at by to from for with without into onto over under up down out off as per than
    then so that this these those it its is are was were be been being am do does did has have had can could will would
    should may might must not no yes all any each every both more most other some such only own same very just also too
    your you our we i my their them they his her he she who which what when where how
    """.split()
)
_SPLIT = re.compile(r"[\s\-–—/]+")
_NUMBER = re.compile(r"[\d.,x×%#\"'”’]+$")


@lru_cache(maxsize=200_000)
def fuzzy_equal(left: str, right: str) -> bool:
    """Whether two phrases count as equal: rounded token-set ratio above 85.

    Latin-1 letters beyond ASCII are dropped and both sides lower-cased first. One token set containing the other
    is a match, so "large" equals "x-large".
    """
    ratio = fuzz.token_set_ratio(
        _LATIN_1_SUPPLEMENT.sub("", left), _LATIN_1_SUPPLEMENT.sub("", right), processor=utils.default_process
    )
    return round(ratio) > MATCH_THRESHOLD


@lru_cache(maxsize=50_000)
def colour_word(value: str) -> str:
    """The first colour word that `value` contains, or `value` itself."""
    return next((colour for colour in COLOURS if colour in value), value)


@lru_cache(maxsize=50_000)
def title_nouns(title: str) -> tuple[str, ...]:
    """Nouns of a product title by a rule: every word that is no function word and no number, lower-cased, in order.

    In Title Case nearly every content word is tagged as a proper noun, so this stands in for a part-of-speech tagger.
    """
    words = (word.strip("()[]{}.,;:!?\"'’“”&+*|~®™#").lower() for word in _SPLIT.split(title))
    words = (word.removesuffix("'s").removesuffix("’s") for word in words)
    return tuple(word for word in words if word and word not in _FUNCTION_WORDS and not _NUMBER.match(word))


def spacy_nouns(pipeline: str = "en_core_web_sm") -> Callable[[str], tuple[str, ...]]:
    """A function from a title to its nouns by a spaCy pipeline, as the original WebShop has it. Results are cached.

    Args:
        pipeline (`str`, *optional*, defaults to `"en_core_web_sm"`): an installed pipeline or a path to one.

    Raises:
        ImportError: if spaCy is missing.
        ValueError: if there is no such pipeline.
    """
    try:
        import spacy
    except ImportError as error:
        raise ImportError("spacy_nouns needs spaCy: pip install 'boost_trl[webshop-spacy]'") from error
    try:
        tagger = spacy.load(pipeline, exclude=["parser", "ner", "lemmatizer"])
    except OSError as error:
        raise ValueError(
            f"spaCy has no pipeline {pipeline!r}; install one (python -m spacy download en_core_web_sm) or pass a path"
        ) from error

    @lru_cache(maxsize=50_000)
    def nouns(title: str) -> tuple[str, ...]:
        return tuple(token.text.lower() for token in tagger(title) if token.pos_ in ("NOUN", "PROPN"))

    return nouns
