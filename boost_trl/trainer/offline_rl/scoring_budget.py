"""Length of the fits of validated reweighting, so that they cost little beside the training that they precede."""

from collections.abc import Iterator

import numpy as np

from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


# Scoring may take this many times as long as training.
COST_LIMIT = 3.0
LONGEST_FIT, SHORTEST_FIT = 400, 16
# θ is fitted for a fit's length divided by one of these.
STEP_DIVISORS = (64, 16, 4, 1)
# Adam's update of the heads takes about as long as this many tokens.
_ADAM_TOKENS = 32
# Training multiplies states and matrix three times: for the loss, and twice in the backward pass.
_FORWARD_SHARE = 1 / 3


def affordable_steps(
    args: BilevelOfflineRLConfig,
    action_counts: np.ndarray,
    num_pool: int,
    *,
    num_candidates: int,
    num_words: int,
    vocab_size: int,
    updates: int,
    rows_per_update: float,
) -> int:
    """The updates of a fit such that scoring costs at most three times the training of the heads: 16 to 400.

    The cost is counted in tokens times words, that of scoring in the worst case of the search for θ's length and with
    Adam's part. What else a policy update costs, a trained backbone above all, is left out: training is longer than that.

    Args:
        args (`BilevelOfflineRLConfig`): `guard` and `score_batch_size`.
        action_counts (`np.ndarray` of shape `(N + M,)`): action tokens per row, the pool's N rows first.
        num_pool (`int`): N.
        num_candidates (`int`): what the guard compares.
        num_words (`int`): of the heads that are fitted.
        vocab_size (`int`): of the heads that are trained.
        updates (`int`): of training.
        rows_per_update (`float`): rows of one process in each of them.
    """
    pool_tokens, validation_tokens = float(action_counts[:num_pool].mean()), float(action_counts[num_pool:].mean())
    num_validation = len(action_counts) - num_pool
    training = updates * vocab_size * rows_per_update * pool_tokens
    per_step = sum(
        share * (min(rows, args.score_batch_size) * (pool_tokens if of_pool else validation_tokens) + _ADAM_TOKENS)
        for rows, of_pool, share in _fits(args, num_pool, num_validation, num_candidates)
    )
    evaluations = 1 + 4 * args.guard + 1
    fixed = _FORWARD_SHARE * evaluations * num_words * float(action_counts[:num_pool].sum())
    if num_words < vocab_size:
        fixed += _FORWARD_SHARE * vocab_size * float(action_counts.sum())
    return int(np.clip((COST_LIMIT * training - fixed) / (num_words * per_step), SHORTEST_FIT, LONGEST_FIT))


def _fits(
    args: BilevelOfflineRLConfig, num_pool: int, num_validation: int, num_candidates: int
) -> Iterator[tuple[float, bool, float]]:
    """Every fit: the distinct rows that it can draw, whether most are the pool's, its length in fits of full length."""
    yield num_pool, True, 1.0
    for rows in (*[num_validation / 2] * 4 * args.guard, num_validation):
        yield rows, False, 1.0
        yield rows / 2, False, 2 * sum(1 / divisor for divisor in STEP_DIVISORS)
    for _ in range(2 * num_candidates * args.guard):
        yield num_pool + num_validation / 2, True, 1.0
