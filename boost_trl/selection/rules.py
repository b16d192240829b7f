"""Update rules of the selector's logits: one class per row of the table in `docs/selector.md`.

A rule owns the state that it needs beside the logits and changes both in place. `step` gets every row of one optimizer
batch once: sorted `ids`, the mean `losses` of each row's occurrences and how many `occurrences` there were.
"""

import numpy as np

from boost_trl.selection.softmax_logits import SoftmaxLogits


class Rule:
    """Gives visited rows a logit, all the same: `"uniform"` and `"mixing"`.

    Args:
        logits ([`SoftmaxLogits`]): changed in place.
        scale (`float`): a row's weight is `scale`·N·σ(ω): 1, or 1/N for the simplex.
    """

    def __init__(self, logits: SoftmaxLogits, scale: float):
        self.logits = logits
        self.scale = scale

    def state(self) -> dict[str, np.ndarray]:
        """Live arrays by name."""
        return {}

    def num_seen(self) -> int:
        return self.logits.count

    def step(self, ids, losses, occurrences, gamma) -> None:
        self.logits.join(ids)


class SparseRule(Rule):
    """Equation (25): ω_b −= a γ w_b (C_b − C̄) for the visited rows, |Δω| ≤ `max_step`.

    C̄ is the running Σ w C / Σ w of earlier batches (of its own for the first). With an exact C̄ the expected step is
    that of equation (26) (times N for mean-one weights), without its O(N) cost.
    """

    decay = 0.99

    def __init__(self, logits, scale, learning_rate, max_step):
        super().__init__(logits, scale)
        self.learning_rate = learning_rate
        self.max_step = max_step
        self.baseline = np.zeros(2)  # decayed Σ w C and Σ w

    def state(self):
        return {"baseline": self.baseline}

    def step(self, ids, losses, occurrences, gamma):
        self.logits.join(ids)
        weights = self.scale * self.logits.weights(ids)
        batch = np.array([(occurrences * weights * losses).sum(), (occurrences * weights).sum()])
        total, norm = self.baseline if self.baseline[1] > 0 else batch
        step = self.learning_rate * gamma * occurrences * weights * (losses - total / norm)
        self.logits.assign(ids, self.logits.values[ids] - step.clip(-self.max_step, self.max_step))
        self.baseline *= self.decay
        self.baseline += batch


class DenseRule(Rule):
    """Equation (24): gradient descent on Σ_b w_b C_b through the softmax of all rows visited so far.

    With p = softmax of these rows' ω: ∂/∂ω_j = w_j (C_j [j in batch] − Σ_b p_b C_b).
    """

    def __init__(self, logits, scale, learning_rate):
        super().__init__(logits, scale)
        self.learning_rate = learning_rate

    def step(self, ids, losses, occurrences, gamma):
        self.logits.join(ids)
        totals = occurrences * losses
        weights = self.scale * self.logits.weights(ids)
        common = (self.logits.weights(ids) * totals).sum() / self.logits.count
        visited = gamma * weights * totals
        self.begin_step()
        for rows, mean_one in self.logits.chunks():
            gradient = -gamma * self.scale * common * mean_one
            inside = slice(*np.searchsorted(ids, [rows.start, rows.stop]))
            gradient[ids[inside] - rows.start] += visited[inside]
            self.descend(rows, gradient)
        self.logits.recompute()

    def begin_step(self) -> None:
        pass

    def descend(self, rows: slice, gradient: np.ndarray) -> None:
        self.logits.values[rows] -= self.learning_rate * gradient


class AdamRule(DenseRule):
    """The papers' dense Adam. Rows outside of the batch move as well: Adam rescales their tiny gradients."""

    betas = (0.9, 0.999)
    eps = 1e-8

    def __init__(self, logits, scale, learning_rate):
        super().__init__(logits, scale, learning_rate)
        self.first_moment = np.zeros(len(logits), dtype=np.float32)
        self.second_moment = np.zeros(len(logits), dtype=np.float32)
        self.steps = np.zeros(1, dtype=np.int64)

    def state(self):
        return {"first_moment": self.first_moment, "second_moment": self.second_moment, "steps": self.steps}

    def begin_step(self):
        self.steps += 1

    def descend(self, rows, gradient):
        beta1, beta2 = self.betas
        step = int(self.steps[0])
        first, second = self.first_moment[rows], self.second_moment[rows]
        first += (1 - beta1) * (gradient - first)
        second += (1 - beta2) * (gradient * gradient - second)
        denominator = np.sqrt(second / (1 - beta2**step)) + self.eps
        self.logits.values[rows] -= self.learning_rate / (1 - beta1**step) * first / denominator


class BmoRule(Rule):
    """Equation (28): ω_b −= a (ω_b + τ C_b), which tracks ω = −τ C; a row's first visit sets it there."""

    def __init__(self, logits, scale, learning_rate, tau):
        super().__init__(logits, scale)
        self.learning_rate = learning_rate
        self.tau = tau

    def step(self, ids, losses, occurrences, gamma):
        before = self.logits.values[ids]
        kept = np.where(np.isnan(before), 0.0, (1 - self.learning_rate) ** occurrences)
        self.logits.assign(ids, kept * np.nan_to_num(before) - (1 - kept) * self.tau * losses)


class BmoExactRule(Rule):
    """Equation (27): ω = −τ C over all rows at a refresh, fixed in between."""

    def __init__(self, logits, scale, tau):
        super().__init__(logits, scale)
        self.tau = tau
        self.seen = np.zeros(len(logits), dtype=bool)

    def state(self):
        return {"seen": self.seen}

    def num_seen(self):
        return int(np.count_nonzero(self.seen))

    def step(self, ids, losses, occurrences, gamma):
        self.seen[ids] = True

    def refresh(self, ids, losses) -> None:
        self.logits.values[:] = np.nan
        self.logits.values[ids] = -self.tau * losses
        self.logits.recompute()


class FixedRule(Rule):
    """Weights that were learned before training, `"validated"`: no step moves them."""

    def step(self, ids, losses, occurrences, gamma):
        pass

    def assign(self, logits: np.ndarray) -> None:
        self.logits.values[:] = logits
        self.logits.recompute()


class RankRule(Rule):
    """Equation (29): ω = log sigmoid((f − rank(s)/V)/0.05) of the V rows visited so far, s an average of a row's
    losses.

    It is recomputed every `refresh_steps`.

    f, the share of rows kept, falls linearly from 1 to `keep_fraction` over the first 75 % of `total_steps`.
    """

    decay = 0.5
    width = 0.05
    ramp = 0.75

    def __init__(self, logits, scale, keep_fraction):
        super().__init__(logits, scale)
        self.keep_fraction = keep_fraction
        self.total_steps: int | None = None
        self.refresh_steps: int | None = None
        self.scores = np.full(len(logits), np.nan, dtype=np.float32)  # NaN: never visited
        self.steps = np.zeros(1, dtype=np.int64)

    def state(self):
        return {"scores": self.scores, "steps": self.steps}

    def num_seen(self):
        return len(self.scores) - int(np.count_nonzero(np.isnan(self.scores)))

    def step(self, ids, losses, occurrences, gamma):
        if self.total_steps is None or self.refresh_steps is None:
            raise ValueError(
                'selector="rank" anneals over training: call `set_schedule(total_steps=..., steps_per_epoch=...)` '
                "before the first update"
            )
        kept = np.where(np.isnan(self.scores[ids]), 0.0, self.decay**occurrences)
        self.scores[ids] = kept * np.nan_to_num(self.scores[ids]) + (1 - kept) * losses
        self.steps += 1
        if self.steps[0] % self.refresh_steps == 0:
            self.refresh()

    def kept_share(self) -> float:
        """f now."""
        assert self.total_steps is not None, "`set_schedule` comes first"
        progress = min(1.0, float(self.steps[0]) / (self.ramp * self.total_steps))
        return 1.0 - (1.0 - self.keep_fraction) * progress

    def refresh(self) -> None:
        share = self.kept_share()
        visited = np.flatnonzero(~np.isnan(self.scores))
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
