"""PAC-Bayes bound on the expected hitting time of a policy that was trained with weights ([B] §4, App. A–B)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


# Interval halvings; a double has no more digits.
_HALVINGS = 100


@dataclass(frozen=True)
class PacBayesBound:
    """Every term of the bound, in steps.

    Args:
        bound (`float`): equation (41) with `c`: `hitting_time` + `complexity` + `task_shift`.
        bound_constant (`float`): the same with the constant `c1`: `hitting_time` + `complexity_constant` + `task_shift`.
        hitting_time (`float`): Σ w̃_i T_i.
        complexity, complexity_constant (`float`): what the policy's distance from the prior costs with so many rows.
        task_shift (`float`, *optional*): Δ_task. `None`: not known; the bound is then on tasks as the weighted training rows have
            them.
        task_shift_is_estimate (`bool`): whether it was estimated. The bound is then no guarantee.
        horizon (`float`): H_max; a bound at or above it says nothing.
        effective_sample_size (`float`): n_eff = 1/Σ w̃².
        kl (`float`): KL(Q‖P₀) in nats.
        delta (`float`): probability with which the bound may fail.
        c (`float`), epsilon_c (`float`): of equation (41).
        c1 (`float`): C₁, about 1.32, in place of `c` and `epsilon_c`.
    """

    bound: float
    bound_constant: float
    hitting_time: float
    complexity: float
    complexity_constant: float
    task_shift: float | None
    task_shift_is_estimate: bool
    horizon: float
    effective_sample_size: float
    kl: float
    delta: float
    c: float
    epsilon_c: float
    c1: float

    @property
    def is_vacuous(self) -> bool:
        """Whether it says no more than that no game is longer than the horizon."""
        return self.bound >= self.horizon


def pac_bayes_bound(
    hitting_times: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    *,
    horizon: float,
    kl: float,
    delta: float = 0.05,
    c: float | None = None,
    task_shift: float | None = None,
    task_shift_is_estimate: bool = False,
) -> PacBayesBound:
    r"""Bound on the policy's expected hitting time on new tasks, which holds with probability 1 − δ: equation (41).

    $$\mathbb E[T] \le \sum_i \tilde w_i T_i + H_\max \frac{1+c}{2\sqrt 2} \sqrt{\frac{\mathrm{KL} + \ln(2/\delta) +
    \varepsilon_c}{n_\mathrm{eff}}} + \Delta_\mathrm{task}$$

    It holds for weights, prior and c that do not depend on the rows. Learned weights do ([B] conditions on them), and so does the best
    c, through the KL; the form with c1 needs no choice of c.

    Args:
        hitting_times (`np.ndarray` of shape `(N,)`): T_i in [0, `horizon`], steps until the task of row i is done, `horizon`
            if it never is. The theorem means those of the learned policy on the row's task; a recorded row has its own
            player's, which stand in for them.
        weights (`np.ndarray` of shape `(N,)`): of the rows, any positive scale.
        horizon (`float`): H_max, the longest game.
        kl (`float`): KL(Q‖P₀) in nats, for example [`gaussian_kl`].
        delta (`float`, *optional*, defaults to `0.05`): in (0, 1).
        c (`float`, *optional*): in (1, e]; the one with the smallest bound by default.
        task_shift (`float`, *optional*): Δ_task in steps; see [`estimate_task_shift`].
        task_shift_is_estimate (`bool`, *optional*, defaults to `False`): kept in the result.

    Raises:
        ValueError: for an argument out of its range, naming it.
    """
    times = np.asarray(hitting_times, dtype=np.float64)
    shares = np.asarray(weights, dtype=np.float64)
    _check(times, shares, horizon, kl, delta, c, task_shift)
    shares = shares / shares.sum()
    log_term = math.log(2 / delta)
    if c is None:
        c = _best_c(kl + log_term, math.log(2) / 2 * (1 + math.log1p(kl / log_term)))
    epsilon = math.log(2) / (2 * math.log(c)) * (1 + math.log1p(kl / log_term))
    n_eff = float(1 / (shares**2).sum())
    time, c1 = float(shares @ times), complexity_constant()
    complexity = horizon * (1 + c) / (2 * math.sqrt(2)) * math.sqrt((kl + log_term + epsilon) / n_eff)
    simple = c1 * horizon * math.sqrt((kl + log_term) / n_eff)
    return PacBayesBound(
        bound=time + complexity + (task_shift or 0.0),
        bound_constant=time + simple + (task_shift or 0.0),
        hitting_time=time,
        complexity=complexity,
        complexity_constant=simple,
        task_shift=task_shift,
        task_shift_is_estimate=task_shift_is_estimate,
        horizon=horizon,
        effective_sample_size=n_eff,
        kl=kl,
        delta=delta,
        c=c,
        epsilon_c=epsilon,
        c1=c1,
    )


def complexity_constant() -> float:
    """C₁: min over c of (1 + c)/(2√2) · √(1 + 1/(2 ln c)), because ε_c ≤ (KL + ln(2/δ))/(2 ln c)."""
    c = _best_c(1.0, 0.5)
    return (1 + c) / (2 * math.sqrt(2)) * math.sqrt(1 + 1 / (2 * math.log(c)))


def gaussian_kl(squared_distance: float, sigma: float) -> float:
    """KL between Gaussians with the same variance around trained and pretrained weights: ‖Δ‖²/(2σ²), in nats.

    Args:
        squared_distance (`float`): ‖Δ‖², the squared distance of the trained weights from the pretrained ones.
        sigma (`float`): σ, chosen before training. The bound is on the policy whose weights have noise of this size.

    Raises:
        ValueError: for a negative distance, or a σ that is not positive.
    """
    if not 0 <= squared_distance < math.inf:
        raise ValueError(f"`squared_distance` must be finite and at least 0, got {squared_distance}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"`sigma` must be a finite number above 0, got {sigma}")
    ratio = math.sqrt(squared_distance) / sigma
    return ratio * ratio / 2


def hitting_times_of(returns: Sequence[float] | np.ndarray, horizon: float) -> np.ndarray:
    """Hitting times (N,) of episodes paid −1 per step before the task is done and 0 for the step that does it, where a failure
    sums to −H_max: minus the return.

    Args:
        returns (sequence of N `float`): undiscounted sums of rewards.
        horizon (`float`): H_max.

    Raises:
        ValueError: for a return that is no such sum: above 0, or below −H_max.
    """
    times = -np.asarray(returns, dtype=np.float64)
    if len(times) and not (times.min() >= 0 and times.max() <= horizon):
        raise ValueError(
            f"hitting times need rewards of −1 per step (`step_cost`), so that returns lie in [−{horizon:g}, 0], but here they "
            f"lie in [{-times.max():g}, {-times.min():g}]"
        )
    return times + 0.0  # no -0.0


def estimate_task_shift(
    training_times: Sequence[float] | np.ndarray,
    weights: Sequence[float] | np.ndarray,
    heldout_times: Sequence[float] | np.ndarray,
) -> float:
    """Difference of mean hitting time between held-out tasks and the weighted training tasks, |mean T − Σ w̃_i T_i|, in steps.

    An estimate from below of Δ_task, which is the largest such difference of any policy: this is that of one.

    Args:
        training_times, weights (sequences of N `float`): of the training rows.
        heldout_times (sequence of `float`): of games, or rows, of held-out tasks.

    Raises:
        ValueError: if there is no held-out time.
    """
    if not len(heldout_times):
        raise ValueError("`heldout_times` is empty: a task shift needs games of held-out tasks")
    return float(abs(np.mean(heldout_times) - np.average(training_times, weights=weights)))


def _best_c(a: float, b: float) -> float:
    """The c in (1, e] with the smallest (1 + c)² (a + b/ln c), for positive a and b.

    With t = ln c its derivative has the sign of 2at² + 2bt − b(1 + e^−t), which grows with t, from −2b to something positive.
    """
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        t = (low + high) / 2
        low, high = (low, t) if 2 * a * t * t + 2 * b * t > b * (1 + math.exp(-t)) else (t, high)
    return max(math.exp(high), math.nextafter(1, 2))  # not 1, where KL is beyond all measure


def _check(
    times: np.ndarray,
    weights: np.ndarray,
    horizon: float,
    kl: float,
    delta: float,
    c: float | None,
    task_shift: float | None,
) -> None:
    if times.shape != weights.shape or times.ndim != 1 or not len(times):
        raise ValueError(
            f"`hitting_times` and `weights` must be of the same rows, got shapes {times.shape} and {weights.shape}"
        )
    if not (
        0 < horizon < math.inf and (times >= 0).all() and (times <= horizon * (1 + 1e-9)).all()
    ):  # but for rounding
        raise ValueError(f"`hitting_times` must lie in [0, `horizon`] = [0, {horizon}]")
    if not ((weights >= 0).all() and 0 < weights.sum() < math.inf):
        raise ValueError("`weights` must be finite, at least 0 and not all 0")
    if not 0 <= kl < math.inf:
        raise ValueError(f"`kl` must be finite and at least 0, got {kl}")
    if not 0 < delta < 1:
        raise ValueError(f"`delta` must be between 0 and 1, got {delta}")
    if c is not None and not 1 < c <= math.e:
        raise ValueError(f"`c` must be in (1, e], got {c}")
    if task_shift is not None and not 0 <= task_shift < math.inf:
        raise ValueError(f"`task_shift` must be finite and at least 0, got {task_shift}")
