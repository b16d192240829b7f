"""Pictures of learned weights: axes say what moves and which way it counts, titles what came out here."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from boost_trl.analysis.hitting_time_bound import PacBayesBound
from boost_trl.analysis.neighbour_distance import Correlation
from boost_trl.analysis.two_runs import WeightShift
from boost_trl.analysis.weight_change import GroupChange
from boost_trl.pictures import figure


GAINED, LOST, NEUTRAL = "#0969da", "#d4761a", "#59636e"
# Points of equal count over which a scatter is averaged.
BINS = 10
_CHANGE = "change from the equal weight"


def percent(change: float) -> str:
    """A relative change with its sign: `+12%`."""
    return f"{change:+.0%}".replace("-", "−")


def times(weight: float) -> str:
    """A weight relative to the equal one: `1.58×`."""
    return "below 0.001×" if weight < 0.001 else f"{weight:.3f}×" if weight < 0.1 else f"{weight:.2f}×"


def draw_change_by_group(groups: Sequence[GroupChange], path: Path) -> None:
    """One bar per kind of row: its mean change; a line for the middle 80% of its rows."""
    with figure(path, figsize=(6.4, 1.5 + 0.62 * len(groups))) as (_, axes):
        places = np.arange(len(groups))[::-1]
        means = np.array([group.mean for group in groups])
        axes.barh(places, means, height=0.55, color=[GAINED if mean > 0 else LOST for mean in means], alpha=0.85)
        for place, group in zip(places, groups):
            axes.plot([group.low, group.high], [place, place], color="black", linewidth=1.2)
            side = {"xycoords": ("axes fraction", "data"), "va": "center"}
            axes.annotate(percent(group.mean), (1.02, place), weight="bold", **side)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(
            places, [f"{group.name}\n{group.rows:,} rows, {group.gained:.0%} gained" for group in groups], fontsize=9
        )
        _change_axis(axes.xaxis)
        axes.set_xlabel(
            f"{_CHANGE}   ← counts less · counts more →\nbar: mean of the rows; line: the middle 80% of them"
        )
        axes.set_title(f"{groups[0].name}: {percent(groups[0].mean)} · {groups[-1].name}: {percent(groups[-1].mean)}")


def draw_change_against_distance(
    distance: np.ndarray, change: np.ndarray, correlation: Correlation | None, path: Path
) -> None:
    """Every synthetic row, and the mean over tenths of them from near to far."""
    with figure(path, figsize=(6.4, 4.2)) as (_, axes):
        axes.scatter(distance, change, s=7, alpha=0.25, color=NEUTRAL, linewidths=0, label="a synthetic row")
        parts = [part for part in np.array_split(np.argsort(distance, kind="stable"), BINS) if len(part)]
        centres, means = ([values[part].mean() for part in parts] for values in (distance, change))
        axes.plot(centres, means, color=GAINED, marker="o", markersize=5, label="mean of a tenth of the rows")
        axes.axhline(0, color="black", linewidth=0.8)
        # A few rows far out would press the others together.
        right, top = 1.2 * np.quantile(distance, 0.99), 1.2 * max(0.1, np.quantile(change, 0.99))
        if hidden := int(((distance > right) | (change > top)).sum()):
            axes.set_xlim(-0.03 * right, right)
            axes.set_ylim(min(-1, change.min()) * 1.05, top)
            axes.annotate(
                f"{hidden:,} rows are farther out", (0.99, 0.02), xycoords="axes fraction", ha="right", fontsize=8
            )
        _change_axis(axes.yaxis)
        axes.set_xlabel("mean L1 distance to the 10 nearest offline rows\n← like offline data · unlike it →")
        axes.set_ylabel(f"{_CHANGE}\n← counts less · counts more →")
        axes.legend(fontsize=8)
        axes.set_title("Synthetic rows" if correlation is None else correlation_text(correlation))


def correlation_text(found: Correlation) -> str:
    """r with its interval."""
    return f"r = {found.r:.2f} (95%: {found.low:.2f} to {found.high:.2f})".replace("-", "−")


def draw_weight_shift(
    before: np.ndarray, after: np.ndarray, shift: WeightShift, names: tuple[str, str], path: Path
) -> None:
    """Every row's weight in both runs, on logarithmic axes, with the share of rows in each quarter."""
    with figure(path, figsize=(6.2, 5.6)) as (_, axes):
        smallest = max(1e-3, min(each[each > 0].min() for each in (before, after)))
        shown = [np.maximum(each, smallest) for each in (before, after)]
        axes.scatter(*shown, s=7, alpha=0.3, color=NEUTRAL, linewidths=0)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.axhline(1, color="black", linewidth=0.8)
        axes.axvline(1, color="black", linewidth=0.8)
        corners = {
            (0.98, 0.98): (None if shift.kept is None else f"kept: {shift.kept:.0%} of the high rows", GAINED),
            (0.02, 0.98): (
                None if shift.promoted is None else f"promoted: {shift.promoted:.0%} of the low rows",
                GAINED,
            ),
            (0.98, 0.02): (None if shift.kept is None else f"dropped: {1 - shift.kept:.0%} of the high rows", LOST),
            (0.02, 0.02): (None if shift.promoted is None else f"still low: {1 - shift.promoted:.0%}", LOST),
        }
        for (x, y), (text, colour) in corners.items():
            if text:
                sides = {"ha": "right" if x > 0.5 else "left", "va": "top" if y > 0.5 else "bottom"}
                box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1}  # over points and lines
                where = {"xycoords": "axes fraction", "bbox": box, **sides}
                axes.annotate(text, (x, y), color=colour, fontsize=9, weight="bold", **where)
        for axis, name in ((axes.xaxis, names[0]), (axes.yaxis, names[1])):
            axis.set_major_formatter(lambda value, _: f"{value:g}×" if value >= 1 else f"1/{1 / value:.0f}×")
            axis.set_label_text(
                f"weight in {name}\n1×: the equal weight   ← counts less · counts more →",
                fontsize=min(10, 500 / (len(name) + 10)),
            )
        axes.set_title(f"The same {shift.rows:,} offline rows in both runs")


def draw_shares_over_epochs(
    panels: Mapping[str, tuple[Sequence[np.ndarray], Sequence[str] | np.ndarray]], path: Path
) -> None:
    """Share of all weight that each kind of row has after each epoch, one panel per run; the start is uniform.

    Args:
        panels (`Mapping`): title -> weights (N,) after each epoch, and the kind of every row.
        path (`Path`): of the picture.
    """
    size = (3.2 * len(panels) + 1.4, 3.6)
    with figure(path, 1, len(panels), figsize=size, sharey=True, squeeze=False) as (_, all_axes):
        for axes, (title, (epochs, kinds)) in zip(all_axes[0], panels.items()):
            kinds = np.asarray(kinds)
            for name in sorted(set(kinds), key=lambda kind: (kind != "good", kind)):
                share = [each[kinds == name].sum() / each.sum() for each in (np.ones(len(kinds)), *epochs)]
                label = f"{name} ({(kinds == name).sum():,} rows)"
                axes.plot(range(len(share)), share, marker="o", markersize=3, label=label)
            axes.set_title(title)
            axes.set_xlabel("epoch (0: equal weights)")
            axes.set_ylim(0, 1)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        all_axes[0][0].set_ylabel("share of all weight\nhigher: the kind counts more")
        all_axes[0][0].legend(fontsize=8)


def draw_bound(bound: PacBayesBound, path: Path, *, kl_is_known: bool = True) -> None:
    """The terms of both forms of the bound, stacked, against the longest game; without a known KL they are too small."""
    with figure(path, figsize=(6.4, 3.2)) as (drawn, axes):
        for place, complexity in ((1, bound.complexity), (0, bound.complexity_constant)):
            start = 0.0
            for label, value, colour in (
                ("weighted hitting time", bound.hitting_time, GAINED),
                ("policy complexity", complexity, LOST),
                ("task shift", bound.task_shift or 0.0, NEUTRAL),
            ):
                axes.barh(place, value, left=start, height=0.5, color=colour, label=label if place else None)
                start += value
            axes.annotate(f" {start:.1f}", (start, place), va="center")
        axes.axvline(bound.horizon, color="black", linestyle="--", linewidth=1, label="longest game")
        axes.set_yticks([1, 0], ["with the\nbest c", f"with\nC₁ = {bound.c1:.2f}"])
        axes.set_xlim(0, 1.15 * max(bound.bound, bound.bound_constant, bound.horizon))
        axes.set_xlabel(
            "steps until the task is done   ← fewer is better\nbeyond the longest game a bound says nothing"
        )
        drawn.legend(fontsize=8, loc="outside lower center", ncols=4)
        best = min(bound.bound, bound.bound_constant)
        end = f"at most {best:.1f}" if kl_is_known else f"a bound above {best:.1f}, KL not known"
        axes.set_title(f"Steps on new tasks: {end}")


def _change_axis(axis) -> None:
    axis.set_major_formatter(lambda value, _: "equal" if abs(value) < 1e-9 else percent(value))
