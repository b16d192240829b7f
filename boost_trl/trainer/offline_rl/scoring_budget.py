"""Length of the fits of validated reweighting, so that they cost little beside the training that they precede."""

from collections.abc import Iterator

import numpy as np

from boost_trl.models.value_heads import ValueHeadsConfig
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


# Scoring is to take at most three times as long as training; what is not counted is given this much room.
COST_LIMIT = 2.5
LONGEST_FIT, SHORTEST_FIT = 400, 16
# θ is fitted for a fit's length divided by one of these.
STEP_DIVISORS = (64, 16, 4, 1)
# Cross-validation judges a policy at the best of these β.
JUDGED_BETAS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# Adam's update of the heads takes about as long as this many tokens.
_ADAM_TOKENS = 32
# A token, a word and a state's entry: two operations for the loss, four in the backward pass.
_FORWARD, _FORWARD_AND_BACKWARD = 2, 6
# What an update takes beside: 1 ms of a fit, 3 ms of Trainer, at a CPU core's 50 operations per nanosecond.
_FIT_OVERHEAD, _TRAINER_OVERHEAD = 5e7, 1.5e8


def folds_of(args: BilevelOfflineRLConfig, num_validation: int) -> int:
    """Folds of the validation rows, of two rows at least; 0 where there are too few rows for two folds."""
    folds = min(args.guard_folds, num_validation // 2)
    return folds if folds > 1 else 0


def affordable_steps(
    args: BilevelOfflineRLConfig,
    action_counts: np.ndarray,
    num_pool: int,
    *,
    num_candidates: int,
    num_words: int,
    heads: ValueHeadsConfig,
    updates: int,
    rows_per_update: float,
) -> int:
    """The updates of a fit such that scoring takes at most about three times as long as training: 16 to 400.

    Operations are counted, those of scoring in the worst case of the search for θ's length. Of training only the heads are,
    not a trained backbone.

    Args:
        args (`BilevelOfflineRLConfig`): `guard` and `score_batch_size`.
        action_counts (`np.ndarray` of shape `(N + M,)`): action tokens per row, the pool's N rows first.
        num_pool (`int`): N.
        num_candidates (`int`): what cross-validation (`guard`) compares.
        num_words (`int`): of the heads that are fitted.
        heads (`ValueHeadsConfig`): those that are trained.
        updates (`int`): of training.
        rows_per_update (`float`): rows of one process in each of them.
    """
    pool_tokens, validation_tokens = float(action_counts[:num_pool].mean()), float(action_counts[num_pool:].mean())
    num_validation = len(action_counts) - num_pool
    entries = heads.hidden_size * heads.num_q_heads

    def fit(rows: float, of_pool: bool) -> float:
        tokens = min(rows, args.score_batch_size) * (pool_tokens if of_pool else validation_tokens) + _ADAM_TOKENS
        return _FORWARD_AND_BACKWARD * entries * num_words * tokens + _FIT_OVERHEAD

    training = _FORWARD_AND_BACKWARD * entries * heads.vocab_size * rows_per_update * pool_tokens + _TRAINER_OVERHEAD
    folds, kinds = folds_of(args, num_validation), 2 if args.guard else 1
    fits = _fits(folds, kinds, num_pool, num_validation, num_candidates if args.guard else 0)
    per_step = sum(share * fit(rows, of_pool) for rows, of_pool, share in fits)
    evaluations = 1 + kinds * folds + 1
    fixed = _FORWARD * entries * evaluations * num_words * float(action_counts[:num_pool].sum())
    if num_words < heads.vocab_size:
        # All words once, and on the half of validation that judges at every β.
        judged = args.guard * len(JUDGED_BETAS) * num_validation * validation_tokens / 2
        fixed += _FORWARD * entries * heads.vocab_size * (float(action_counts.sum()) + judged)
    return int(np.clip((COST_LIMIT * updates * training - fixed) / per_step, SHORTEST_FIT, LONGEST_FIT))


def _fits(
    folds: int, kinds: int, num_pool: int, num_validation: int, num_candidates: int
) -> Iterator[tuple[float, bool, float]]:
    """Every fit: the distinct rows that it can draw, whether most are the pool's, its length in fits of full length."""
    yield num_pool, True, 1.0
    others = num_validation * (folds - 1) / max(1, folds)
    for rows in (*[others] * kinds * folds, num_validation):
        yield rows, False, 1.0
    for _ in range(kinds):
        yield num_validation / 2, False, 2 * sum(1 / divisor for divisor in STEP_DIVISORS)
    for _ in range(folds * num_candidates):
        yield num_pool + others, True, 1.0
