"""How the selector's logits move: one class per row of the table in `docs/selector.md`.

A rule owns the state that it needs beside the logits and changes both in place. `step` gets every row of one optimizer
batch once: sorted `ids`, the mean `losses` of each row's occurrences and how many `occurrences` there were.
"""

import numpy as np

from boost_trl.selection.softmax_logits import SoftmaxLogits


class Rule:
    """Marks rows as seen and leaves the logits alone: `"uniform"` and `"mixing"`.

    Args:
        logits ([`SoftmaxLogits`]): changed in place.
        scale (`float`): a row's weight is `scale`·σ(ω): N, or 1 for the simplex.
    """

    def __init__(self, logits: SoftmaxLogits, scale: float):
        self.logits = logits
        self.scale = scale
        self.seen = np.zeros(len(logits), dtype=bool)

    def state(self) -> dict[str, np.ndarray]:
        """Live arrays by name."""
        return {"seen": self.seen}

    def visit(self, ids: np.ndarray) -> np.ndarray:
        """Marks rows as seen; which of them are seen for the first time."""
        first = ~self.seen[ids]
        self.seen[ids] = True
        return first

    def num_seen(self) -> int:
        return int(np.count_nonzero(self.seen))

    def step(self, ids, losses, occurrences, gamma) -> None:
        self.visit(ids)


class SparseRule(Rule):
    """ω_b −= a γ w_b (C_b − C̄) for the visited rows, |Δω| ≤ `max_step`.

    C̄ is the running Σ w C / Σ w of earlier batches (of its own for the first). With an exact C̄ the expected step is
    Lemma 9's (times N for mean-one weights), without its O(N) cost.
    """

    decay = 0.99

    def __init__(self, logits, scale, learning_rate, max_step):
        super().__init__(logits, scale)
        self.learning_rate = learning_rate
        self.max_step = max_step
        self.baseline = np.zeros(2)  # decayed Σ w C and Σ w

    def state(self):
        return {**super().state(), "baseline": self.baseline}

    def step(self, ids, losses, occurrences, gamma):
        self.visit(ids)
        weights = self.scale * self.logits.probabilities(ids)
        batch = np.array([(occurrences * weights * losses).sum(), (occurrences * weights).sum()])
        total, norm = self.baseline if self.baseline[1] > 0 else batch
        step = self.learning_rate * gamma * occurrences * weights * (losses - total / norm)
        self.logits.assign(ids, self.logits.values[ids] - step.clip(-self.max_step, self.max_step))
        self.baseline *= self.decay
        self.baseline += batch


class DenseRule(Rule):
    """Gradient descent on Σ_b w_b C_b through the full softmax: ∂/∂ω_j = w_j (C_j [j in batch] − Σ_b σ_b C_b)."""

    def __init__(self, logits, scale, learning_rate):
        super().__init__(logits, scale)
        self.learning_rate = learning_rate

    def step(self, ids, losses, occurrences, gamma):
        self.visit(ids)
        totals = occurrences * losses
        probabilities = self.logits.probabilities(ids)
        common = (probabilities * totals).sum()
        visited = gamma * self.scale * probabilities * totals
        self.begin_step()
        for rows, sigma in self.logits.chunks():
            gradient = -gamma * self.scale * common * sigma
            inside = slice(*np.searchsorted(ids, [rows.start, rows.stop]))
            gradient[ids[inside] - rows.start] += visited[inside]
            self.descend(rows, gradient)
        self.logits.recompute()

    def begin_step(self) -> None:
        pass

    def descend(self, rows: slice, gradient: np.ndarray) -> None:
        self.logits.values[rows] -= self.learning_rate * gradient


class AdamRule(DenseRule):
    """The papers' dense Adam. Rows that are never visited move as well: Adam rescales their tiny gradients."""

    betas = (0.9, 0.999)
    eps = 1e-8

    def __init__(self, logits, scale, learning_rate):
        super().__init__(logits, scale, learning_rate)
        del self.seen
        self.first_moment = np.zeros(len(logits), dtype=np.float32)
        # A second moment is never negative: its sign bit marks a row as not seen yet, and a row costs 12 bytes, not 13.
        self.second_moment = np.full(len(logits), -0.0, dtype=np.float32)
        self.steps = np.zeros(1, dtype=np.int64)

    def state(self):
        return {"first_moment": self.first_moment, "second_moment": self.second_moment, "steps": self.steps}

    def visit(self, ids):
        first = np.signbit(self.second_moment[ids])
        self.second_moment[ids] = np.abs(self.second_moment[ids])
        return first

    def num_seen(self):
        return len(self.second_moment) - int(np.count_nonzero(np.signbit(self.second_moment)))

    def begin_step(self):
        self.steps += 1

    def descend(self, rows, gradient):
        beta1, beta2 = self.betas
        step = int(self.steps[0])
        first, second = self.first_moment[rows], self.second_moment[rows]
        first += (1 - beta1) * (gradient - first)
        moment = beta2 * np.abs(second) + (1 - beta2) * gradient * gradient
        second[:] = np.copysign(moment, second)
        denominator = np.sqrt(moment / (1 - beta2**step)) + self.eps
        self.logits.values[rows] -= self.learning_rate / (1 - beta1**step) * first / denominator


class BmoRule(Rule):
    """(48): ω_b −= a (ω_b + τ L_b), which tracks ω = −τ L; a row's first visit sets it there."""

    def __init__(self, logits, scale, learning_rate, tau):
        super().__init__(logits, scale)
        self.learning_rate = learning_rate
        self.tau = tau

    def step(self, ids, losses, occurrences, gamma):
        if not self.seen.any():
            self.logits.values[:] = -self.tau * np.average(losses, weights=occurrences)
            self.logits.recompute()
        first = self.visit(ids)
        kept = np.where(first, 0.0, (1 - self.learning_rate) ** occurrences)
        self.logits.assign(ids, kept * self.logits.values[ids] - (1 - kept) * self.tau * losses)


class BmoExactRule(Rule):
    """(42)–(43): ω = −τ L over all rows at a refresh, fixed in between."""

    def __init__(self, logits, scale, tau):
        super().__init__(logits, scale)
        self.tau = tau

    def refresh(self, ids, losses) -> None:
        self.logits.values[:] = -self.tau * losses.mean()
        self.logits.values[ids] = -self.tau * losses
        self.logits.recompute()


class RankRule(Rule):
    """ω = log sigmoid((f − rank(s)/N)/0.05), s an average of a row's losses, recomputed every `refresh_steps`.

    f, the share of rows kept, falls linearly from 1 to `keep_fraction` over the first 75 % of `total_steps`.
    """

    decay = 0.5
    width = 0.05
    ramp = 0.75

    def __init__(self, logits, scale, keep_fraction):
        super().__init__(logits, scale)
        del self.seen
        self.keep_fraction = keep_fraction
        self.total_steps: int | None = None
        self.refresh_steps: int | None = None
        self.scores = np.full(len(logits), np.nan, dtype=np.float32)  # NaN: never visited
        self.steps = np.zeros(1, dtype=np.int64)

    def state(self):
        return {"scores": self.scores, "steps": self.steps}

    def visit(self, ids):
        return np.isnan(self.scores[ids])

    def num_seen(self):
        return len(self.scores) - int(np.count_nonzero(np.isnan(self.scores)))

    def step(self, ids, losses, occurrences, gamma):
        if self.total_steps is None or self.refresh_steps is None:
            raise ValueError(
                'selector="rank" anneals over training: call `set_schedule(total_steps=..., steps_per_epoch=...)` '
                "before the first update."
            )
        kept = np.where(self.visit(ids), 0.0, self.decay**occurrences)
        self.scores[ids] = kept * np.nan_to_num(self.scores[ids]) + (1 - kept) * losses
        self.steps += 1
        if self.steps[0] % self.refresh_steps == 0:
            self.refresh()

    def kept_share(self) -> float:
        """f now."""
        progress = min(1.0, float(self.steps[0]) / (self.ramp * self.total_steps))
        return 1.0 - (1.0 - self.keep_fraction) * progress

    def refresh(self) -> None:
        share = self.kept_share()
        visited = np.flatnonzero(~np.isnan(self.scores))
        self.logits.values[:] = _log_sigmoid(share / self.width)
        if visited.size:
            relative = fractional_ranks(self.scores[visited]) / visited.size
            self.logits.values[visited] = _log_sigmoid((share - relative) / self.width)
        self.logits.recompute()


def fractional_ranks(values: np.ndarray) -> np.ndarray:
    """0 for the lowest value; equal values share the mean of their ranks, so that row order decides nothing."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(values)])
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (lengths - 1) / 2, lengths)
    return ranks


def _log_sigmoid(x):
    return -np.logaddexp(0.0, -x)
