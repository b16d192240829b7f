"""The analyses of a run as sections of a page: a picture, what it shows here in plain words, and the numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from boost_trl.analysis.neighbour_distance import Correlation, correlation, distance_to_nearest
from boost_trl.analysis.pictures import (
    correlation_text,
    draw_change_against_distance,
    draw_change_by_group,
    draw_shares_over_epochs,
    draw_weight_shift,
    percent,
    times,
)
from boost_trl.analysis.run_files import PLANTED, Run
from boost_trl.analysis.two_runs import WeightShift, weight_shift
from boost_trl.analysis.weight_change import GroupChange, change_by_group, relative_weight_change
from boost_trl.html_page import escape_markdown
from boost_trl.tables import markdown_table


NEIGHBOURS = 10
# More bars are a table.
MOST_BARS = 12
SHOWN_CATEGORIES = 5


@dataclass
class Section:
    """Part of a page.

    Args:
        title (`str`): plain words.
        text (`str`): Markdown, with the pictures of the folder.
        numbers (`dict`): for `analysis.json`, under `key`.
        key (`str`): of the numbers.
        html (`str`, *optional*): what Markdown cannot lay out, below the text.
        finding (`str`, *optional*): the section in one sentence, for the top of the page.
    """

    title: str
    key: str
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)
    html: str | None = None
    finding: str | None = None


def weights_by_kind(run: Run, folder: Path) -> Section:
    """Relative weight change by kind of row, and by category.

    Raises:
        ValueError: if the rows are all of one kind.
    """
    if run.kinds is None:
        raise ValueError("the training rows have no column `source`, `kind` or `category` that tells them apart")
    groups = change_by_group(run.weights, run.kinds)
    finding = _kinds_finding(groups)
    parts = []
    if len(groups) <= MOST_BARS:
        draw_change_by_group(groups, folder / "weights_by_kind.png")
        parts += ["![Change of the weights by kind of row](weights_by_kind.png)"]
    parts += [f"**Here:** {finding}", _groups_table(groups[:MOST_BARS])]
    numbers = {"by_kind": [asdict(group) for group in groups]}
    categories = run.table["category"].fillna("unknown").astype(str) if "category" in run.table else run.kinds
    if len(set(categories)) > 1 and not np.array_equal(categories, run.kinds):
        categories = change_by_group(run.weights, categories)
        numbers["by_category"] = [asdict(group) for group in categories]
        if len(categories) > 2 * SHOWN_CATEGORIES:
            parts.append(f"Categories: the {SHOWN_CATEGORIES} that gained and the {SHOWN_CATEGORIES} that lost most.")
            categories = categories[:SHOWN_CATEGORIES] + categories[-SHOWN_CATEGORIES:]
        else:
            parts.append("Categories:")
        parts.append(_groups_table(categories))
    parts.append(
        "*Equal* is the weight that every row has before anything is learned; −100% is a row that is ignored."
    )
    return Section("Which kind of row counts more", "weight_change", "\n\n".join(parts), numbers, finding=finding)


def _kinds_finding(groups: Sequence[GroupChange]) -> str:
    first, last = groups[0], groups[-1]
    if first is last:
        return f"all rows are of one kind, {escape_markdown(first.name)}."
    words = (
        f"{_row_words(first)} count {_times(first.mean)} the equal weight on average, {_row_words(last)} "
        f"{_times(last.mean)}; of the first {first.gained:.0%} gained, of the last {last.gained:.0%}."
    )
    # First and last are picked among all pairs of kinds: at 95 % for all of them together.
    limit = NormalDist().inv_cdf(1 - 0.025 / math.comb(len(groups), 2))
    if first.mean - last.mean < limit * math.hypot(first.error, last.error):
        words += " The difference is within what chance does: by kind, the weights say nothing."
    noise = [group for group in groups if group.name.startswith(PLANTED)]
    if noise and len(noise) < len(groups):
        rest = [group for group in groups if group not in noise]
        means = [
            sum(group.mean * group.rows for group in part) / sum(group.rows for group in part)
            for part in (noise, rest)
        ]
        verdict = "as it should be" if means[0] < means[1] else "the wrong way round"
        words += (
            f" Planted noise, which is bad, has {_times(means[0])} the equal weight, all other rows {_times(means[1])}: "
            f"{verdict}."
        )
    return words[0].upper() + words[1:]


def _row_words(group: GroupChange) -> str:
    return f"the {group.rows:,} *{escape_markdown(group.name)}* rows"


def _times(change: float) -> str:
    return times(1 + change)


def _groups_table(groups: Sequence[GroupChange]) -> str:
    header = ["kind", "rows", "mean change", "middle 80% of rows", "rows that gained", "share of all weight"]
    lines = [
        [
            escape_markdown(group.name),
            f"{group.rows:,}",
            percent(group.mean),
            f"{percent(group.low)} to {percent(group.high)}",
            f"{group.gained:.0%}",
            f"{group.weight_share:.0%}",
        ]
        for group in groups
    ]
    return markdown_table([header, *lines])


def weights_over_epochs(run: Run, folder: Path) -> Section | None:
    """Share of all weight of every kind of row after each epoch; `None` where it was not kept."""
    epochs = run.weights_over_epochs()
    if not epochs or run.kinds is None or len(set(run.kinds)) > MOST_BARS:
        return None
    draw_shares_over_epochs({run.name: (epochs, run.kinds)}, folder / "weights_over_epochs.png")
    shares = {
        str(kind): [float(each[run.kinds == kind].sum() / each.sum()) for each in epochs]
        for kind in sorted(set(run.kinds))
    }
    moved = {kind: share[-1] - float((run.kinds == kind).mean()) for kind, share in shares.items()}
    most = max(moved, key=lambda kind: abs(moved[kind]))
    finding = (
        f"*{escape_markdown(most)}* moved most: from {(run.kinds == most).mean():.0%} of all weight to {shares[most][-1]:.0%} "
        f"in {len(epochs)} epochs."
    )
    text = f"![Share of all weight over training](weights_over_epochs.png)\n\n**Here:** {finding}"
    return Section("How the weights came about", "over_epochs", text, {"share_of_weight": shares})


def synthetic_distance(run: Run, folder: Path, *, progress: bool = False) -> Section | None:
    """Weight of synthetic rows against their distance to the offline rows; `None` without synthetic rows.

    Raises:
        ValueError: if the embeddings are missing, or not of these rows.
    """
    if not run.is_synthetic.any() or run.is_synthetic.all():
        return None
    embeddings = run.embeddings()
    if embeddings is None or len(embeddings) != len(run.table) or not np.isfinite(embeddings).all():
        raise ValueError(
            "the embeddings of its rows were not saved, or are not of these; `trainer.save_model()` of this version saves them"
        )
    distance = distance_to_nearest(
        embeddings[run.is_synthetic], embeddings[~run.is_synthetic], k=NEIGHBOURS, progress=progress
    )
    change = relative_weight_change(run.weights)[run.is_synthetic]
    found = correlation(distance, change)
    draw_change_against_distance(distance, change, found, folder / "weight_against_distance.png")
    near = distance <= np.quantile(distance, 0.1)
    far = distance >= np.quantile(distance, 0.9)
    finding = (
        f"Of the {len(distance):,} synthetic rows, the tenth nearest to offline rows counts {_times(change[near].mean())} "
        f"the equal weight, the farthest tenth {_times(change[far].mean())}"
        + (f"; {correlation_text(found)}. " if found else ". ")
        + _distance_verdict(found)
    )
    text = [
        "![Weight of synthetic rows against their distance](weight_against_distance.png)",
        f"**Here:** {finding}",
        f"Distance: mean L1 distance of a row's embedding (the language model's last hidden state) to its {NEIGHBOURS} nearest "
        "offline rows. The paper's values of r are −0.26 (Twenty Questions), −0.49 (Car Dealer) and −0.10 (WebShop).",
    ]
    numbers = {
        "rows": len(distance),
        "nearest_tenth": float(change[near].mean()),
        "farthest_tenth": float(change[far].mean()),
        "correlation": None if found is None else {**asdict(found), "is_uneven": found.is_uneven},
    }
    return Section(
        "Synthetic rows near the offline data, and far from it",
        "distance",
        "\n\n".join(text),
        numbers,
        finding=finding,
    )


def _distance_verdict(found: Correlation | None) -> str:
    if found is None:
        return "There is no trend to speak of: one of the two is constant."
    if found.low <= 0 <= found.high:
        trend = "The interval holds 0: no trend is shown."
    else:
        direction = "nearer rows count more, as in the paper" if found.r < 0 else "farther rows count more"
        trend = f"So {direction}."
    if not found.is_uneven or found.low <= 0 <= found.high:
        return trend
    within = " and ".join(
        f"{'none' if half is None else f'{half.r:.2f}'.replace('-', '−')} among the {name} half"
        for name, half in (("nearer", found.near), ("farther", found.far))
    )
    return f"{trend} **But that is no trend throughout**, it comes from one end: r is {within} of them. See the line of means."


def shift_between(before: Run, after: Run, folder: Path, number: int) -> Section | None:
    """Weights of the same offline rows without (`before`) and with synthetic rows (`after`); `None` if they are not the same
    rows."""
    offline = ~after.is_synthetic
    if not after.is_synthetic.any() or before.is_synthetic.any():
        return None
    # Cells of a grid have the same rows with every algorithm.
    if len({run.result.get("setting") for run in (before, after)} - {None}) > 1:
        return None
    own, other = before.table.get("text"), after.table[offline].get("text")
    if own is None or other is None or own.tolist() != other.tolist():
        return None
    pair = before.weights, after.weights[offline]
    shift = weight_shift(*pair)
    name = f"weight_shift_{number}.png" if number > 1 else "weight_shift.png"
    draw_weight_shift(*pair, shift, (before.name, after.name), folder / name)
    finding = _shift_words(shift, before.name)
    text = (
        f"![Weights of the same rows in two runs]({name})\n\n**Here:** {finding} *High* is above the equal weight of a row's "
        "own run. The paper's figures are 88% kept and 36.2% promoted (Car Dealer)."
    )
    title = f"Offline rows without and with synthetic ones: {before.name}"
    return Section(title, f"shift_from_{before.folder.name}", text, asdict(shift), finding=finding)


def _shift_words(shift: WeightShift, name: str) -> str:
    kept = "no offline row" if shift.kept is None else f"{shift.kept:.0%} of the offline rows"
    promoted = "none was low" if shift.promoted is None else f"{shift.promoted:.0%} of its low rows became high"
    return (
        f"{kept} that were high in {escape_markdown(name)} are high here too, and {promoted}; if the two had nothing to do with "
        f"each other, both shares would be {shift.high_after:.0%}."
    )


def collect(makers: Sequence[Callable[[], Section | None]]) -> tuple[list[Section], list[str]]:
    """The sections that can be made, and of each that cannot, why not."""
    sections, missing = [], []
    for make in makers:
        try:
            section = make()
        except ValueError as error:
            missing.append(str(error))
            continue
        if section is not None:
            sections.append(section)
    return sections, missing
