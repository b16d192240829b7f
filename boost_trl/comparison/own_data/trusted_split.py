"""Trusted rows in two parts: one that methods may use, one that judges them and that none sees."""

import numpy as np


FEWEST_TRUSTED = 8
FEWEST_JUDGING = 20


def split_trusted(num_rows: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows that methods may use and of those that judge them, each in order.

    Args:
        num_rows (`int`): trusted rows.
        share (`float`): of the rows that judge; it is raised to 20 rows, but to half of all rows at most.
        seed (`int`): fixes which.

    Raises:
        ValueError: as `check_split`.
    """
    check_split(num_rows, share)
    at_least = min(FEWEST_JUDGING, num_rows // 2)
    count = min(max(round(share * num_rows), at_least), num_rows - FEWEST_TRUSTED // 2)
    order = np.random.default_rng(seed).permutation(num_rows)
    return np.sort(order[count:]), np.sort(order[:count])


def check_split(num_rows: int, share: float, name: str = "validation") -> None:
    """Raises:
    ValueError: for a share outside of (0, 1), or too few rows.
    """
    if not 0 < share < 1:
        raise ValueError(f"`judging_share` must lie in (0, 1), got {share}")
    if num_rows < FEWEST_TRUSTED:
        raise ValueError(
            f"{name} has {num_rows} trusted rows, and a comparison needs at least {FEWEST_TRUSTED}: a part that methods use and a "
            "part that judges them; add rows"
        )
