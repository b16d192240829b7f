"""Parts of every comparison's verdict: the order of two methods, the words for a clear gain, and the list that says it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any


CLEAR = 2.0  # standard errors

Row = Mapping[str, Any]


def ahead_and_behind(
    weighted: Row | None, control: Row | None, value: Callable[[Row], float]
) -> tuple[Row | None, Row | None]:
    """The best method with learned weights and the best without, the better one first; `None` in the place of one that there is not.

    Args:
        weighted (`Mapping`, *optional*), control (`Mapping`, *optional*): their rows.
        value (`Callable`): of a row, higher is better; where both have the same, the control is first.
    """
    if weighted is None or control is None:
        return weighted or control, None
    return (control, weighted) if value(control) >= value(weighted) else (weighted, control)


def clarity(gain: float, error: float) -> str:
    """End of a sentence: a gain is clear, or could be chance."""
    return "is clear" if gain > CLEAR * error else "could be chance"


def as_markdown(headline: str, points: Sequence[str]) -> str:
    """A paragraph, and a list below it."""
    return "\n\n".join([headline, "\n".join(f"- {point}" for point in points)])


def kind_of(learns_weights: bool, knows_good_rows: bool) -> str:
    """Of a method, a key of `boost_trl.comparison.pictures.COLOURS`."""
    return "bar to reach" if knows_good_rows else "learned" if learns_weights else "control"
