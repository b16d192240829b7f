"""The name that was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches


# What another command calls the same.
_ELSEWHERE = {"method": "selector", "selector": "method"}


def nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is the same or spelt nearly as `name`, or else the shortest that begins with it; `None` if there is
    none."""
    if _ELSEWHERE.get(name) in (known := set(known)):
        return _ELSEWHERE[name]
    known = sorted(known, key=lambda each: (len(each), each))
    return next(iter([*get_close_matches(name, known, n=1), *(each for each in known if each.startswith(name))]), None)
