"""Settings that hold a value of another type than their field's, which Python takes as they are."""

import math
import types
from collections.abc import Collection, Iterable
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, get_args, get_origin, get_type_hints


def check_field_types(
    settings: Any, kind: type, *, infinite: Collection[str] = (), free: Collection[str] = ()
) -> None:
    """Check the fields of `kind` in `settings` against their annotations, and against the `choices` of their metadata.

    Args:
        settings: an instance of `kind`.
        kind (`type`): the dataclass whose fields are checked, inherited ones included.
        infinite (collection of `str`, *optional*): fields of numbers that may be infinite; the others are finite.
        free (collection of `str`, *optional*): fields that may hold something else.

    Raises:
        ValueError: naming the first field that holds another type, and what it must hold.
    """
    hints = get_type_hints(kind)
    for field in fields(kind):
        value = getattr(settings, field.name)
        alternatives = _alternatives(hints[field.name])
        if field.name in free or (value is None and type(None) in alternatives):
            continue
        choices = field.metadata.get("choices")
        if choices is not None:
            if value not in choices:
                raise ValueError(f"`{field.name}` must be one of {', '.join(map(repr, choices))}, got {value!r}")
            continue
        known = [one for one in alternatives if one is not type(None)]
        is_infinite = field.name in infinite
        if not any(_holds(value, one, is_infinite) for one in known):
            wanted = " or ".join(_described(one, is_infinite) for one in known)
            otherwise = " or None" if len(known) < len(alternatives) else ""
            raise ValueError(f"`{field.name}` must be {wanted}{otherwise}, got {value!r}")


def check_at_least_one(settings: Any, names: Iterable[str]) -> None:
    """Raises:
    ValueError: naming the first of these fields that is below 1; None is nothing to count.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}")


def check_positive(settings: Any, names: Iterable[str]) -> None:
    """Raises:
    ValueError: naming the first of these fields that is not above 0; None is no number.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None and value <= 0:
            raise ValueError(f"`{name}` must be positive, got {value}")


def _alternatives(hint: Any) -> tuple:
    return get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _holds(value: Any, kind: Any, is_infinite: bool) -> bool:
    kind, items = get_origin(kind) or kind, get_args(kind)
    if kind is list:
        return isinstance(value, list) and all(isinstance(item, items) for item in value)
    if kind not in (int, float):
        return isinstance(value, kind)
    # `True` is a number to Python, and numpy's numbers are none of its own.
    if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
        return False
    return not math.isnan(value) and (is_infinite or not math.isinf(value))


def _described(kind: Any, is_infinite: bool) -> str:
    if kind is float:
        return "a number" if is_infinite else "a finite number"
    names = {int: "a whole number", bool: "True or False", str: "text", list: "a list of text", dict: "a dict"}
    return names[get_origin(kind) or kind]
