"""From pieces of rows, spread over micro-batches, packed sequences and processes, to one mean loss per row."""

import numpy as np


def row_means(ids: np.ndarray, loss_sums: np.ndarray, token_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per-token mean loss C_b of every row in an optimizer batch.

    A packed row may lie in several sequences, micro-batches or processes. Its pieces are summed and counted before they
    are divided; dividing first would let a short piece weigh as much as a long one.

    Args:
        ids (`np.ndarray`): (P,) row id of each piece; negative ids and pieces without tokens are left out.
        loss_sums (`np.ndarray`): (P,) summed token losses of each piece.
        token_counts (`np.ndarray`): (P,) tokens of each piece.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: the different ids, sorted, and their mean losses in float64. The result does
        not depend on the order of the pieces, to the last bit.
    """
    ids, loss_sums, token_counts = np.asarray(ids), np.asarray(loss_sums, np.float64), np.asarray(token_counts)
    kept = (ids >= 0) & (token_counts > 0)
    ids, loss_sums, token_counts = ids[kept], loss_sums[kept], token_counts[kept]
    order = np.lexsort((token_counts, loss_sums, ids))
    rows, starts = np.unique(ids[order], return_index=True)
    if not len(rows):
        return rows, np.empty(0)
    return rows, np.add.reduceat(loss_sums[order], starts) / np.add.reduceat(token_counts[order], starts)
