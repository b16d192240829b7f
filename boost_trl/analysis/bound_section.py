"""The PAC-Bayes bound of a run, every term shown."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from boost_trl.analysis.hitting_time_bound import (
    PacBayesBound,
    estimate_task_shift,
    gaussian_kl,
    hitting_times_of,
    pac_bayes_bound,
)
from boost_trl.analysis.moved_weights import squared_distance
from boost_trl.analysis.pictures import draw_bound
from boost_trl.analysis.run_files import Run
from boost_trl.analysis.sections import Section
from boost_trl.tables import markdown_table, number


def bound_section(
    run: Run,
    folder: Path,
    *,
    horizon: float | None = None,
    delta: float = 0.05,
    kl: float | None = None,
    sigma: float = 0.02,
    task_shift: float | None = None,
    heldout_returns: Sequence[float] | None = None,
) -> Section | None:
    """The bound for a run on rows paid by step; `None` for rows without rewards.

    Args:
        run (`Run`): whose.
        folder (`Path`): gets the picture.
        horizon (`float`, *optional*): H_max; the longest hitting time among the rows by default.
        delta (`float`, *optional*, defaults to `0.05`): of the bound.
        kl (`float`, *optional*): in nats; by default a Gaussian's, from the saved weights.
        sigma (`float`, *optional*, defaults to `0.02`): that Gaussian's standard deviation: GPT-2's weights are drawn with it.
        task_shift (`float`, *optional*): Δ_task in steps.
        heldout_returns (sequence of `float`, *optional*): of held-out rows or games, to estimate Δ_task by; by default those of
            the run's own games, if they are paid by step.

    Raises:
        ValueError: if the rows are not paid by step.
    """
    if "return" not in run.table:
        return None
    returns = run.table["return"].to_numpy()
    horizon = max(0.0, float(-returns.min())) if horizon is None else horizon
    try:
        times = hitting_times_of(returns, horizon)
    except ValueError as error:
        raise ValueError(f"no bound: {error}") from None
    kl, kl_words = _kl(run, kl, sigma)
    is_known = kl is not None
    heldout_times = None if task_shift is not None else _heldout_times(run, heldout_returns, horizon)
    if is_estimate := heldout_times is not None:
        task_shift = estimate_task_shift(times, run.weights, heldout_times)
    bound = pac_bayes_bound(
        times,
        run.weights,
        horizon=horizon,
        kl=kl or 0.0,
        delta=delta,
        task_shift=task_shift,
        task_shift_is_estimate=is_estimate,
    )
    draw_bound(bound, folder / "hitting_time_bound.png", kl_is_known=is_known)
    finding = _finding(bound, is_known)
    text = [
        "![Terms of the bound](hitting_time_bound.png)",
        f"**Here:** {finding}",
        _terms(bound, kl_words),
        "The theorem ([B] App. B) is about weights, prior and c chosen without looking at the rows, and about the times of the "
        "learned policy on their tasks. Here the weights were learned from the rows and the times are those of the rows' own "
        "players, so read it as a comparison between runs, not as a guarantee.",
    ]
    numbers = {**asdict(bound), "kl_is_known": is_known, "kl_source": kl_words}
    return Section(
        "How far the result can be trusted on new tasks", "bound", "\n\n".join(text), numbers, finding=finding
    )


def _heldout_times(run: Run, returns: Sequence[float] | None, horizon: float) -> np.ndarray | None:
    if returns is not None:
        return hitting_times_of(returns, horizon)
    returns = run.heldout_returns()
    if returns is None or not -horizon <= min(returns) <= max(returns) <= 0:
        return None
    return hitting_times_of(returns, horizon)


def _kl(run: Run, kl: float | None, sigma: float) -> tuple[float | None, str]:
    if kl is not None:
        return kl, "given"
    try:
        parts = squared_distance(run.folder)
    except (ValueError, OSError) as error:
        return None, f"not known ({error}); 0, a policy that has not moved, stands for it"
    words = " + ".join(f"{value:.3g} ({name})" for name, value in parts.items())
    return (
        gaussian_kl(sum(parts.values()), sigma),
        f"‖Δ‖²/(2σ²) with ‖Δ‖² = {words} and σ = {sigma:g}, for a policy whose weights have Gaussian noise of that size",
    )


def _finding(bound: PacBayesBound, kl_is_known: bool) -> str:
    best = min(bound.bound, bound.bound_constant)
    start = (
        f"The weighted rows take {bound.hitting_time:.1f} of at most {bound.horizon:g} steps on average, and count as "
        f"{bound.effective_sample_size:,.0f} independent ones; "
    )
    if bound.is_vacuous:
        return (
            start
            + f"the bound on the steps that new tasks take, {best:.1f}, says nothing: it is no less than the longest game."
        )
    if not kl_is_known:
        return (
            start
            + f"how far the policy has moved is not known, and without that the bound on the steps that new tasks take is only known to be above {best:.1f}."
        )
    where = "new tasks like those of the weighted rows" if bound.task_shift is None else "new tasks"
    caution = ", if the task shift is as estimated" if bound.task_shift_is_estimate else ""
    return start + f"{where} take at most {best:.1f} with probability {1 - bound.delta:.0%}{caution}."


def _terms(bound: PacBayesBound, kl_words: str) -> str:
    shift = "not known: the bound is for tasks as the weighted rows have them"
    if bound.task_shift is not None:
        shift = "an estimate from below, so no guarantee" if bound.task_shift_is_estimate else "given"
    rows = [
        ["term", "value", "from"],
        ["weighted hitting time Σ w̃T", f"{bound.hitting_time:.2f}", "the rows' returns: minus one per step"],
        ["longest game H_max", f"{bound.horizon:g}", "steps"],
        ["n_eff = 1/Σ w̃²", f"{bound.effective_sample_size:,.1f}", "the weights"],
        ["KL(Q‖P₀), nats", f"{bound.kl:.4g}", kl_words],
        ["δ", f"{bound.delta:g}", "given"],
        ["best c in (1, e]", f"{bound.c:.3f}", f"ε_c = {bound.epsilon_c:.3f}"],
        ["complexity, exact (B.3)", f"{bound.complexity:.2f}", "H_max (1+c)/(2√2) √((KL + ln(2/δ) + ε_c)/n_eff)"],
        ["complexity, constant (B.4)", f"{bound.complexity_constant:.2f}", f"C₁ = {bound.c1:.3f}"],
        ["task shift Δ_task", number(bound.task_shift), shift],
        ["**bound, exact (B.3)**", f"**{bound.bound:.2f}**", "steps"],
        ["**bound, constant (B.4)**", f"**{bound.bound_constant:.2f}**", "steps"],
    ]
    return markdown_table(rows, "lrl")
