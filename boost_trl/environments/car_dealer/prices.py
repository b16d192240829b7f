"""Prices in free words, read strictly: what may be meant in two ways is no price."""

import re


AMOUNT = re.compile(
    r"(?:\$\s?(?P<number>[0-9](?:[0-9.,]*[0-9])?)"
    # `$24 500`, `$24-25k`, `$24'500` and `$24m` are not `$24`.
    r"(?:\s?(?P<thousand>k|thousand|grand)\b)?(?P<more>[^\W_]|[-\u2013'\u2019]\s?\$?[0-9]|\s[0-9]{3}\b|\s(?:m|mil|million)\b)?"
    r"|(?<![\w$.,])(?P<number_2>[0-9](?:[0-9.,]*[0-9])?)(?:\s?(?P<thousand_2>k|thousand|grand))?\s?(?:\$|(?:dollars|bucks|usd)\b))",
    re.IGNORECASE,
)
_WHOLE = re.compile(r"(?:[0-9]{1,9}|[0-9]{1,3}(?:,[0-9]{3}){1,2})(?:\.[0-9]{2})?")
_THOUSANDS = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,3})?")
# A number of the small world is a price after one of these words, or if it stands alone.
_SMALL = re.compile(r"(?:\b(?:price|no|deal|minimum) |(?:^|;)\s*(?=[^\s;]+\s*(?:;|$)))([$0-9][^\s;]*)", re.IGNORECASE)


def amounts_in(text: str, world: str) -> list[int | None]:
    """All prices named, in order; `None` for one that cannot be read with certainty.

    Full world: `$24,500`, `$24500`, `$24,500.00`, `$24.5k`, `24,500 dollars`. `$24.500` and `$24,5000` are unclear.
    Small world: a whole number up to 999 after `price`, `no`, `deal` or `minimum`, or alone.
    """
    if world == "small":
        named = [word.rstrip(".,!") for word in _SMALL.findall(text)]
        return [int(word) if re.fullmatch("[0-9]{1,3}", word) else None for word in named]
    return [_read(match) for match in AMOUNT.finditer(text)]


def prices_in(text: str, world: str) -> list[int]:
    """The prices of [`amounts_in`] that are clear."""
    return [price for price in amounts_in(text, world) if price is not None]


def _read(match: re.Match) -> int | None:
    number, thousand = match["number"] or match["number_2"], match["thousand"] or match["thousand_2"]
    if match["more"] or not (_THOUSANDS if thousand else _WHOLE).fullmatch(number):
        return None
    return round(float(number.replace(",", "")) * (1000 if thousand else 1))
