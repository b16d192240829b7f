"""Planting noise in a pool of any world: the choice of the rows and their marks."""

import random
from collections.abc import Callable
from typing import Any


NOISE_KINDS = ("diverse", "stale", "bot", "weak")


def check_noise(kind: str, share: float) -> None:
    """Check kind and share of planted noise.

    Raises:
        ValueError: for an unknown kind or a share outside [0, 1].
    """
    if kind not in NOISE_KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(NOISE_KINDS)}, got {kind!r}")
    check_share(share)


def check_share(share: float) -> None:
    """Check a share of planted noise.

    Raises:
        ValueError: for a share outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must be between 0 and 1, got {share}")


def plant_noise(
    rows: list[dict[str, Any]],
    kind: str,
    share: float,
    seed: int,
    make: Callable[[dict[str, Any], random.Random], tuple[str, dict[str, Any]]],
) -> None:
    """Replace random rows in place, so that `share` of them is noise, and mark them.

    Args:
        rows (`list[dict]`): rows of a pool.
        kind (`str`): which noise; part of what seeds a row's random numbers.
        share (`float`): share of the rows, in [0, 1].
        seed (`int`): which rows, and what they become.
        make (`Callable`): a row and its random numbers -> the name of its noise and what it becomes.
    """
    for index in sorted(random.Random(f"noise {seed}").sample(range(len(rows)), round(share * len(rows)))):
        name, made = make(rows[index], random.Random(f"noise {kind} {seed} {index}"))
        rows[index] = made | {"is_noise": True, "noise_kind": name}
