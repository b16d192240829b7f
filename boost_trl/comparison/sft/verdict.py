"""First part of an SFT comparison's report: which way won, and which rows weights found bad."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from boost_trl.comparison.pictures import Bar, draw_methods
from boost_trl.comparison.results import Result, paired_difference
from boost_trl.comparison.row_text import shorten, text_of
from boost_trl.comparison.sft.experiment import SFTExperiment
from boost_trl.comparison.sft.methods import SFT_METHODS, SFTMethod
from boost_trl.comparison.verdict import ahead_and_behind, as_markdown, clarity, kind_of
from boost_trl.html_page import escape_markdown
from boost_trl.tables import markdown_table, number, plus_minus


LOSSES = "losses.png"
PLAIN = "sft"
SHOWN_ROWS = 6

Rows = Sequence[Mapping[str, Any]]


def method_of(row: Mapping[str, Any]) -> SFTMethod:
    """The method of a row, whose result the guard may have chosen."""
    return SFT_METHODS[row["method"].removesuffix("_guarded")]


def best(rows: Rows, learned: bool) -> Mapping[str, Any] | None:
    """The row of lowest loss among the methods that learn weights, or among the others without those that know good rows."""
    found = [row for row in rows if method_of(row).learns_weights == learned and not method_of(row).known_good]
    return min((row for row in found if row["eval_loss"] is not None), key=lambda row: row["eval_loss"], default=None)


def verdict(results: Sequence[Result], rows: Rows) -> str:
    """The way of the lowest loss, what it does, by how much it is ahead of the best of the others and whether that is clear."""
    weighted, control = best(rows, learned=True), best(rows, learned=False)
    ahead, behind = ahead_and_behind(weighted, control, lambda row: -row["eval_loss"])
    if ahead is None:
        return ""
    plain = next((row for row in rows if row["method"] == PLAIN and row is not ahead), None)
    beside = "" if plain is None else f", plain training {number(plain['eval_loss'])}"
    headline = (
        f"**Of {len(rows)} ways of training, *{ahead['label']}* has the lowest loss on trusted rows that nothing trained on: "
        f"{number(ahead['eval_loss'])}{beside}.**"
    )
    points = []
    if about := method_of(ahead).about:
        points.append(f"**What it does:** {about}.")
    if behind is not None:
        side = "that learns weights" if behind is weighted else "without learned weights"
        points.append(
            f"**How sure?** The best way {side}, *{behind['label']}*, has {number(behind['eval_loss'])}. "
            f"{_clarity(results, ahead['method'], behind['method'])}"
        )
    return as_markdown(headline, points)


def _clarity(results: Sequence[Result], ahead: str, behind: str) -> str:
    seeds = len({result.seed for result in results})
    difference = paired_difference(results, ahead, behind, "eval_loss")
    if seeds == 1 or difference is None:
        return "One seed: single runs vary a lot, so run several before you build on it."
    mean, error = difference
    return f"The difference over {seeds} seeds, {plus_minus(-mean, error, '.2f')}, {clarity(-mean, error)}."


def tried(results: Sequence[Result], options: Mapping[str, Any]) -> str:
    """Sentence that says what was compared."""
    seeds, methods = ({getattr(result, name) for result in results} for name in ("seed", "method"))
    updates = f" with {options['max_steps']} updates each" if "max_steps" in options else ""
    return (
        f"**What was tried:** {len(methods)} ways of fine-tuning on a pool of {max(result.num_rows for result in results)} rows of mixed "
        f"quality{updates}, with {len(seeds)} seed{'s' * (len(seeds) > 1)}."
    )


def losses_picture(rows: Rows, folder: Path) -> str:
    """Draw the losses, the lowest on top; returns the picture's Markdown."""
    judged = sorted((row for row in rows if row["eval_loss"] is not None), key=lambda row: row["eval_loss"])

    def kind(method: SFTMethod) -> str:
        return kind_of(method.learns_weights, method.known_good)

    bars = [Bar(row["label"], row["eval_loss"], row["eval_loss_se"], kind(method_of(row))) for row in judged]
    if not bars:
        return ""
    draw_methods(bars, "loss on trusted rows (lower is better)", folder / LOSSES)
    return f"![Loss of each way of training]({LOSSES})"


def bad_rows(experiment: SFTExperiment, weights: np.ndarray, label: str) -> list[str]:
    """Rows that weights found bad: the share of each kind, where it is known, and the rows of lowest and highest weight.

    Args:
        experiment ([`SFTExperiment`]): with a pool of N rows, with `prompt` and `completion`.
        weights (`np.ndarray` of shape `(N,)`): at the end of training.
        label (`str`): of the method.
    """
    if np.ptp(weights) == 0:
        return []
    pool, weights = experiment.pool, weights / weights.mean()
    order = np.argsort(weights, kind="stable")
    return [
        "## Which rows it found bad, and why",
        f"By the weights of *{label}*; a row of plain training counts 1×.",
        _by_kind(experiment, weights),
        "**Rows that count least**",
        _rows(pool, weights, order[:SHOWN_ROWS]),
        "**Rows that count most**",
        _rows(pool, weights, order[::-1][:SHOWN_ROWS]),
    ]


def _by_kind(experiment: SFTExperiment, weights: np.ndarray) -> str:
    if "kind" not in experiment.pool.column_names:
        return ""
    kinds = np.asarray(experiment.pool["kind"])
    header = ["kind of row (training was not told)", "what it does", "share of the pool", "share of all weight"]
    cells = [
        [
            kind,
            experiment.about_kinds.get(kind, ""),
            f"{shown.mean():.0%}",
            f"{weights[shown].sum() / weights.sum():.0%}",
        ]
        for kind in sorted(set(kinds))
        for shown in [kinds == kind]
    ]
    return markdown_table([header, *cells], "llrr")


def _rows(pool: Dataset, weights: np.ndarray, numbers: Sequence[int]) -> str:
    lines = []
    for place in map(int, numbers):
        row = pool[place]
        texts = (escape_markdown(shorten(text_of(row[name]))) for name in ("prompt", "completion"))
        lines.append(
            [f"{weights[place]:.2f}×" if weights[place] >= 0.01 else "< 0.01×", str(row.get("kind", "")), *texts]
        )
    return markdown_table([["counts", "kind", "question", "answer"], *lines], "rlll")
