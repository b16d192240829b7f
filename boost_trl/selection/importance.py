"""Weights of self-generated answers: importance ratios and BMO's response weights."""

from typing import NamedTuple

import torch

from boost_trl.selection.choices import LEVELS, RESPONSE_WEIGHTINGS


class ImportanceRatios(NamedTuple):
    """Importance ratios of a batch of answers, and statistics of the raw ones.

    Args:
        ratios (`torch.Tensor`): float32, detached, capped; (B,), or (B, T) at token level with 0 outside of the mask.
        is_finite (`torch.Tensor`): (B,) bool. Where it is false a log-probability was NaN or infinite, and the
            answer's ratios are 0: it must be replaced and counted, not trained on.
        mean (`float`): of the raw ratios, before capping, over finite answers (their tokens at token level).
        max (`float`): of the same.
        capped_share (`float`): share of the same above `cap`.
        of_answers (`torch.Tensor`): (B,) float64, the raw ratio of each whole answer, whatever the level; at most the
            largest float64, and 1 where it is not finite.
    """

    ratios: torch.Tensor
    is_finite: torch.Tensor
    mean: float
    max: float
    capped_share: float
    of_answers: torch.Tensor


def importance_ratios(
    logps_new: torch.Tensor,
    logps_old: torch.Tensor,
    mask: torch.Tensor,
    level: str = "sequence",
    cap: float | None = 3.0,
) -> ImportanceRatios:
    r"""Importance ratio of an answer, now to when it was generated, r = π_θ(y)/π_old(y).

    Log-ratios are summed in float64 and exponentiated once. `"sequence"` is the paper's product over tokens; `"token"`
    keeps one (biased) ratio per token; `"geometric"` is the product's T-th root. Ratios are cut at `cap` from above;
    with `None` (the paper) only at the largest float32.

    Args:
        logps_new (`torch.Tensor`): (B, T) log-probabilities of the answers' tokens under the current policy.
        logps_old (`torch.Tensor`): (B, T) the same under the policy that generated them.
        mask (`torch.Tensor`): (B, T), true on the answers' tokens; what lies outside may hold anything.
        level (`str`, *optional*, defaults to `"sequence"`): `"sequence"`, `"token"` or `"geometric"`.
        cap (`float`, *optional*, defaults to `3.0`): largest ratio.

    Returns:
        [`ImportanceRatios`]
    """
    _check_choice("importance_sampling_level", level, LEVELS)
    if cap is not None and not cap > 0:
        raise ValueError(f"`importance_sampling_cap` must be positive or None, got {cap}")
    mask = mask.bool()
    log_ratio = (logps_new.detach().double() - logps_old.detach().double()).masked_fill(~mask, 0.0)
    is_finite = torch.isfinite(log_ratio).all(dim=1)
    log_ratio = log_ratio.masked_fill(~is_finite[:, None], 0.0)
    of_answers = log_ratio.sum(dim=1)
    if level == "token":
        counted = mask & is_finite[:, None]
    else:
        log_ratio = of_answers / mask.sum(dim=1).clamp(min=1) if level == "geometric" else of_answers
        counted = is_finite
    of_answers = of_answers.exp().clamp(max=torch.finfo(torch.float64).max)
    highest = torch.finfo(torch.float32).max if cap is None else cap
    ratios = log_ratio.exp().clamp(max=highest).masked_fill(~counted, 0.0).float()
    raw = log_ratio[counted].exp().clamp(max=torch.finfo(torch.float64).max)
    if not raw.numel():
        return ImportanceRatios(ratios, is_finite, 0.0, 0.0, 0.0, of_answers)
    # Divided before they are summed: a mean of huge ratios is huge, not infinite.
    mean, capped = (raw / raw.numel()).sum(), (raw > highest).double().mean()
    return ImportanceRatios(ratios, is_finite, mean.item(), raw.max().item(), capped.item(), of_answers)


def response_weights(
    logps_new: torch.Tensor,
    logps_old: torch.Tensor,
    mask: torch.Tensor,
    question_ids: torch.Tensor,
    response_weighting: str = "importance",
    level: str = "sequence",
    cap: float | None = 3.0,
) -> torch.Tensor:
    r"""Factor of each answer's loss inside 1/G Σ_g (·) L(y_g), its question's mean over G answers.

    `"importance"`: the ratio r_g of [`importance_ratios`]. `"softmax"`: G·λ_g with λ_g = softmax_g(−L(y_g)) of
    equation (33), L the summed loss: λ sums to one over a question's answers, so that G·λ_g has mean one, as r_g has
    at age 0, and a question weighs the same whatever G is. `"none"`: 1.

    Args:
        logps_new, logps_old, mask (`torch.Tensor`): (B, T), as in [`importance_ratios`].
        question_ids (`torch.Tensor`): (B,) which answers belong together.
        response_weighting (`str`, *optional*, defaults to `"importance"`): `"importance"`, `"softmax"` or `"none"`.
        level (`str`, *optional*, defaults to `"sequence"`): for `"importance"`.
        cap (`float`, *optional*, defaults to `3.0`): for `"importance"`.

    Returns:
        `torch.Tensor` of float32, detached: (B,), or (B, T) for token-level ratios. 0 for an answer with a
        log-probability that is not finite.
    """
    _check_choice("response_weighting", response_weighting, RESPONSE_WEIGHTINGS)
    if response_weighting == "importance":
        return importance_ratios(logps_new, logps_old, mask, level, cap).ratios
    logps = logps_new.detach().double().masked_fill(~mask.bool(), 0.0).sum(dim=1)
    is_finite = torch.isfinite(logps)
    if response_weighting == "none":
        return is_finite.float()
    group = torch.unique(question_ids, return_inverse=True)[1]
    num_groups = int(group.max()) + 1 if group.numel() else 0
    logps = logps.masked_fill(~is_finite, float("-inf"))
    highest = logps.new_full((num_groups,), float("-inf")).scatter_reduce_(0, group, logps, "amax")
    odds = (logps - highest[group]).exp().masked_fill(~is_finite, 0.0)
    total = odds.new_zeros(num_groups).index_add_(0, group, odds)
    size = odds.new_zeros(num_groups).index_add_(0, group, is_finite.double())
    return (odds * (size / total.clamp(min=torch.finfo(total.dtype).tiny))[group]).float()


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"`{field}` must be one of {', '.join(choices)}, got {value!r}")
