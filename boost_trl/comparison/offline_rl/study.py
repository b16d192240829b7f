"""Tables of a study: many settings, worlds and seeds, one column per pool."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.results import mean_over_groups
from boost_trl.tables import markdown_table, plus_minus


def mean_over_worlds(values: Mapping[tuple[int, int], float]) -> tuple[float, float]:
    """Mean ± SE over worlds of values by (world, seed); the seeds of one world are averaged first, since they share its
    difficulty."""
    return mean_over_groups(values, lambda key: key[0])


def scores_table(rows: Sequence[dict[str, Any]], pools: Sequence[str]) -> str:
    """Markdown: score of every method (rows) on every pool (columns), mean ± SE over worlds; AUC in brackets.

    Args:
        rows (`Sequence[dict]`): results with `pool`, `world` and `seed`.
        pools (`Sequence[str]`): columns.
    """
    lines = [["method", *pools]]
    for name, method in METHODS.items():
        cells = []
        for pool in pools:
            runs = _by_run(rows, pool, name)
            if not runs:
                cells.append("")
                continue
            mean, error = mean_over_worlds({key: row["score_mean"] for key, row in runs.items()})
            aucs = [row["weights_auc"] for row in runs.values() if row["weights_auc"] is not None]
            cells.append(plus_minus(mean, error) + (f" ({np.mean(aucs):.2f})" if aucs else ""))
        if any(cells):
            lines.append([method.label, *cells])
    return markdown_table(lines)


def differences_table(
    rows: Sequence[dict[str, Any]], method: str, controls: Sequence[str], pools: Sequence[str]
) -> str:
    """Markdown: paired differences of `method` to every control (rows) on every pool, mean ± SE over worlds."""
    lines = [[f"{METHODS[method].label} minus", *pools]]
    for control in controls:
        cells = []
        for pool in pools:
            ours, theirs = _by_run(rows, pool, method), _by_run(rows, pool, control)
            both = {key: ours[key]["score_mean"] - theirs[key]["score_mean"] for key in ours.keys() & theirs.keys()}
            cells.append(plus_minus(*mean_over_worlds(both), "+.2f") if both else "")
        if any(cells):
            lines.append([METHODS[control].label, *cells])
    return markdown_table(lines)


def _by_run(rows: Sequence[dict[str, Any]], pool: str, method: str) -> dict[tuple[int, int], dict[str, Any]]:
    return {(row["world"], row["seed"]): row for row in rows if (row["pool"], row["method"]) == (pool, method)}
