"""Tempering: weights of a given effective sample size from scores."""

import numpy as np
import torch

import boost_trl.losses


# exp(-k · gap) is 0 in float64 beyond this, so a larger k changes nothing.
_LARGEST_EXPONENT = 745.0


def effective_sample_size(weights: np.ndarray, shares: np.ndarray | None = None) -> float:
    r"""\\( (\sum_i w_i)^2 / \sum_i w_i^2 \\), equation (17) for weights of any sum: N for uniform weights, 1 when one row
    has them all. For weights of turns, equation (37).

    Args:
        weights (`np.ndarray` of shape `(N,)` or `(U,)`): not negative and not all zero.
        shares (`np.ndarray` of shape `(U,)`, *optional*): the part of its row that every turn is.
    """
    shares = None if shares is None else torch.from_numpy(shares)
    return boost_trl.losses.effective_sample_size(torch.from_numpy(weights / weights.sum()), shares).item()


def temper(scores: np.ndarray, fraction: float, shares: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    r"""Weights of a given effective sample size, equation (19): \\( w = \mathrm{softmax}(k f) \\) with
    \\( 1/\sum_i w_i^2 = \text{fraction} \cdot N \\), by bisection on k ≥ 0.

    The effective sample size falls from N at k = 0 to the number of rows that share the highest score. A target below
    that is out of reach: the result is then uniform over those rows, and over all rows where all scores are equal.

    Turns are weighed by \\( w_u \propto \eta_u e^{k f_u} \\), with equation (37) for the effective sample size; "uniform"
    then means proportional to the shares η.

    Args:
        scores (`np.ndarray` of shape `(N,)` or `(U,)`): f, finite.
        fraction (`float`): in (0, 1].
        shares (`np.ndarray` of shape `(U,)`, *optional*): η, the part of its row that every turn is; rows are weighed by
            default.

    Returns:
        `tuple`: weights of the shape of `scores`, float64, which sum to one, and k.

    Raises:
        ValueError: naming the first row whose score is not finite.
    """
    gaps = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(gaps).all():
        raise ValueError(f"the score of row {int(np.argmin(np.isfinite(gaps)))} is not finite")
    gaps = gaps.max() - gaps
    positive = gaps[gaps > 0]
    shares = np.ones(len(gaps)) if shares is None else shares
    num_rows = shares.sum()
    if len(positive) == 0 or fraction >= 1:
        return shares / num_rows, 0.0

    def weights(k: float) -> np.ndarray:
        unnormalised = shares * np.exp(-k * gaps)
        return unnormalised / unnormalised.sum()

    low, high = 0.0, _LARGEST_EXPONENT / float(positive.min())
    target = fraction * num_rows
    if effective_sample_size(weights(high), shares) >= target:
        return weights(high), high
    # Relative precision is enough: k spans many orders of magnitude.
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if effective_sample_size(weights(middle), shares) > target else (low, middle)
    return weights(high), high
