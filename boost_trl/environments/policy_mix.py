"""Mixes of scripted policies, as `offline_trajectories` of every world takes them."""

from collections.abc import Iterable, Mapping


def check_mix(mix: Mapping[str, float], known: Iterable[str], n: int) -> None:
    """For `n` episodes of the policies `known`, mixed by the shares of `mix`.

    Raises:
        ValueError: for an unknown policy, shares that are negative or all zero, or `n` below 1.
    """
    if unknown := sorted(set(mix) - set(known)):
        raise ValueError(f"unknown policies {unknown} in `mix`; known: {', '.join(known)}")
    if min(mix.values(), default=0) < 0 or sum(mix.values()) <= 0:
        raise ValueError(f"`mix` needs shares of at least 0 and not all 0, not {dict(mix)}")
    if n < 1:
        raise ValueError(f"`n` must be at least 1, got {n}")
