"""The rows of a pool that weights trust least, with their text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset

from boost_trl.comparison.row_text import row_text
from boost_trl.html_page import escape_markdown
from boost_trl.tables import markdown_table


SHOWN = 10


@dataclass(frozen=True)
class WorstRow:
    """A row of the pool.

    Args:
        row (`int`): its number, from 0.
        weight (`float`): its weight, of mean one over the pool, averaged over seeds.
        text (`str`): what it says, shortened.
    """

    row: int
    weight: float
    text: str


def worst_rows(pool: Dataset, scores: Sequence[np.ndarray], count: int = SHOWN) -> list[WorstRow]:
    """The `count` rows of lowest weight, by the mean over seeds of its logarithm; none if all weights are equal.

    Args:
        pool (`Dataset`): N rows.
        scores (sequence of `np.ndarray` of shape `(N,)`): the logits of the weights, one array per seed.
        count (`int`, *optional*, defaults to `10`): rows.
    """
    logs = [_log_shares(each) for each in scores if np.ptp(each) > 0]
    if not logs:
        return []
    weights = len(pool) * np.exp(logs).mean(axis=0)
    order = np.argsort(np.mean(logs, axis=0), kind="stable")[:count]
    return [WorstRow(int(row), float(weights[row]), row_text(pool[int(row)])) for row in order]


def _log_shares(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(np.asarray(logits, np.float64)).log_softmax(0).numpy()


def worst_rows_table(rows: Sequence[WorstRow]) -> str:
    """Markdown."""
    cells = [[str(row.row), f"{row.weight:.2g}", escape_markdown(row.text)] for row in rows]
    return markdown_table([["row", "weight", "text"], *cells], "rrl")
