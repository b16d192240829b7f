"""Ways to weigh the pool and to finish, among which validated reweighting or games on validation tasks choose."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


@dataclass(frozen=True)
class Candidate:
    """One way to weigh the pool and to finish.

    Args:
        score_validation (`str`, *optional*): what θ is fitted to, `"high_return"` or `"all"`; `None`: uniform weights.
        fraction (`float`, *optional*, defaults to `1.0`): effective sample size over N.
        finish_share (`float`, *optional*, defaults to `0.0`): last share of the updates that sees validation rows only.
    """

    score_validation: str | None = None
    fraction: float = 1.0
    finish_share: float = 0.0

    @property
    def name(self) -> str:
        weights = "uniform" if self.score_validation is None else f"{self.score_validation}@{self.fraction:g}"
        return f"{weights}+finish@{self.finish_share:g}" if self.finish_share else weights

    @property
    def options(self) -> dict[str, Any]:
        """Fields of the configuration that train it, beside `method="validated"`."""
        if self.score_validation is None:
            return {"reweighting": "uniform", "finish_share": self.finish_share}
        return {
            "score_validation": self.score_validation,
            "target_effective_fraction": self.fraction,
            "finish_share": self.finish_share,
            "guard": False,
        }


CANDIDATES = (Candidate(), Candidate("high_return", 0.7), Candidate("high_return", 0.4), Candidate("all", 0.4))
FINISH_SHARES = (0.0, 0.3)


def candidates_of(args: BilevelOfflineRLConfig) -> dict[str, Candidate]:
    """Candidates that cross-validation compares, by name: `CANDIDATES` and, if it is none of these, the configured
    setting, each with the configured finishing share or, if there is none, with every one of `FINISH_SHARES`."""
    configured = Candidate(args.score_validation, args.target_effective_fraction)
    found = [
        replace(candidate, finish_share=share)
        for share in (FINISH_SHARES if args.finish_share is None else (args.finish_share,))
        for candidate in (*CANDIDATES, configured)
    ]
    return {candidate.name: candidate for candidate in found}


def choose_candidate(losses: dict[str, list[float]]) -> tuple[str, str]:
    """The name of the candidate with the lowest mean loss, and why. Ties go to the first.

    Args:
        losses (`dict[str, list[float]]`): per candidate, one cross-entropy per fold; uniform weights first.
    """
    means = {name: float(np.mean(values)) for name, values in losses.items()}
    first, *others = means
    uniform = means[first]
    best = min(others, key=means.__getitem__)
    if means[best] < uniform:
        return (
            best,
            f"{best} has the lowest mean cross-entropy on the held-out folds, {means[best]:.4f}; uniform: {uniform:.4f}",
        )
    return (
        first,
        f"no candidate beats uniform weights on the held-out folds: {uniform:.4f}; {best}: {means[best]:.4f}",
    )
