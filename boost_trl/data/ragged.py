"""Rows of different lengths, one after the other in a flat array."""

import numpy as np


def ragged_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Concatenated `arange(start, start + length)`.

    Args:
        starts, lengths (`np.ndarray` of shape `(N,)`): of each range.
    """
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)
