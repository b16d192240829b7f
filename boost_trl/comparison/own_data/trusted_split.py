"""Trusted rows in two parts: one that methods may use, one that judges them and that none sees."""

from collections.abc import Hashable, Sequence

import numpy as np


FEWEST_TRUSTED = 8
FEWEST_JUDGING = 20


def split_trusted(
    groups: Sequence[Hashable], share: float, seed: int, at_least: int = FEWEST_JUDGING
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows that methods may use and of those that judge them, each in order; a group of rows is never cut.

    Args:
        groups (`Sequence`): of the trusted rows, such as their tasks; all different where each row stands for itself.
        share (`float`): of the groups that judge; it is raised to `at_least`, but to half of all groups at most.
        seed (`int`): fixes which.
        at_least (`int`, *optional*, defaults to `20`): groups that judge.

    Raises:
        ValueError: as `check_split`.
    """
    check_split(groups, share)
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    total = numbers.max() + 1
    count = min(max(round(share * total), min(at_least, total // 2)), total - FEWEST_TRUSTED // 2)
    is_judging = np.isin(numbers, np.random.default_rng(seed).permutation(total)[:count])
    return np.flatnonzero(~is_judging), np.flatnonzero(is_judging)


def check_split(groups: Sequence[Hashable], share: float, name: str = "validation", has_tasks: bool = False) -> None:
    """Raises:
    ValueError: for a share outside of (0, 1), or too few groups.
    """
    if not 0 < share < 1:
        raise ValueError(f"`judging_share` must lie in (0, 1), got {share}")
    found = len(set(groups))
    if found < FEWEST_TRUSTED:
        what, remedy = ("trusted rows of {} tasks", "rows of other tasks, or leave out `environment`")
        if not has_tasks:
            what, remedy = "{} different trusted rows", "rows"
        raise ValueError(
            f"{name} has {what.format(found)}, and a comparison needs at least {FEWEST_TRUSTED}: a part that methods use and a "
            f"part that judges them; add {remedy}"
        )
