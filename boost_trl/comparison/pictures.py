"""The picture that a comparison's report begins with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from boost_trl.pictures import figure


COLOURS = {"learned": "#0969da", "control": "#8c959f", "bar to reach": "#d1d9e0"}
LEGEND = {
    "learned": "learns weights",
    "control": "does without (control)",
    "bar to reach": "knows which rows are good",
}


@dataclass(frozen=True)
class Bar:
    """A method in the picture.

    Args:
        label (`str`): how tables call it.
        value (`float`), error (`float`): mean and standard error.
        kind (`str`): a key of `COLOURS`.
    """

    label: str
    value: float
    error: float
    kind: str


def draw_methods(bars: Sequence[Bar], measure: str, path: Path) -> None:
    """Mean ± standard error of every method, the first on top.

    Args:
        bars (`Sequence[Bar]`): of the methods.
        measure (`str`): what the values are, for the axis.
        path (`Path`): of the picture.
    """
    with figure(path, figsize=(7.5, 1.1 + 0.32 * len(bars))) as (drawn, axes):
        for kind in dict.fromkeys(bar.kind for bar in bars):
            places = [place for place, bar in enumerate(bars) if bar.kind == kind]
            values, errors = ([getattr(bars[place], name) for place in places] for name in ("value", "error"))
            error_bars = {"ecolor": "#1f2328", "capsize": 2.5, "error_kw": {"elinewidth": 1}}
            axes.barh(places, values, xerr=errors, color=COLOURS[kind], label=LEGEND[kind], height=0.68, **error_bars)
        axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
        axes.invert_yaxis()
        axes.set_xlabel(measure)
        drawn.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=3)
        axes.spines[["top", "right"]].set_visible(False)
