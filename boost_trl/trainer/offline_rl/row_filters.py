"""Filters that choose training rows without validation data: the controls of validated reweighting.

Both keep the same share of the pool; training on it is `method="validated", reweighting="uniform"`, so that only the
choice of rows differs. Without such controls sharpening is mistaken for selection.
"""

from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from boost_trl.data.chat_templates import with_action_marks
from boost_trl.data.state_cache import action_states
from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.models.value_heads import ValueHeads
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.offline_rl.backbone import tokenize_options, value_heads_config
from boost_trl.trainer.offline_rl.head_fitting import HeadFitter
from boost_trl.trainer.offline_rl.validated_reweighting import fit_to_pool
from boost_trl.trainer.offline_rl.value_head_initialization import initialize_value_heads


def return_filter(store: TrajectoryStore, fraction: float) -> np.ndarray:
    """The rows of `store` with the highest returns, ascending; ties by row order.

    Args:
        store (`TrajectoryStore`): N rows.
        fraction (`float`): share of the rows to keep, in (0, 1]; at least one row is kept.
    """
    return _lowest(-store.row_returns().astype(np.float64), fraction)


def low_loss_filter(policy_losses: np.ndarray, fraction: float) -> np.ndarray:
    """The rows with the lowest losses, ascending; ties by row order.

    Args:
        policy_losses (`np.ndarray` of shape `(N,)`): ℓ_i(ψ), the policy part, of heads fitted to the same rows
            (`fit_to_pool`, `HeadFitter.policy_losses`).
        fraction (`float`): share of the rows to keep, in (0, 1]; at least one row is kept.
    """
    return _lowest(policy_losses, fraction)


def filter_rows(
    kind: str,
    dataset: Dataset,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    args: BilevelOfflineRLConfig,
    fraction: float,
) -> list[int]:
    """Rows of `dataset` that a filter keeps.

    Args:
        kind (`str`): `"return"` or `"low_loss"`.
        dataset (`Dataset`): training rows in the trajectory format.
        model (`PreTrainedModel`), tokenizer (`PreTrainedTokenizerBase`): what training starts from.
        args (`BilevelOfflineRLConfig`): of the training; lengths, discount, loss and `score_*` count here.
        fraction (`float`): share of the usable rows to keep.

    Returns:
        `list[int]`: row numbers of `dataset`, ascending, for `dataset.select`.

    Raises:
        ValueError: for an unknown kind, a share outside (0, 1] or a bad row.
    """
    if kind not in ("return", "low_loss"):
        raise ValueError(f"`kind` must be 'return' or 'low_loss', got {kind!r}")
    tokenizer = with_action_marks(tokenizer)
    rows = tokenize_trajectories(dataset, tokenizer, name="dataset", **tokenize_options(model, args))
    store = TrajectoryStore(rows, tokenizer.pad_token_id)
    if kind == "return":
        kept = return_filter(store, fraction)
    else:
        kept = low_loss_filter(_pool_losses(store, model, args), fraction)
    return store.original_row[kept].tolist()


def _pool_losses(store: TrajectoryStore, model: PreTrainedModel, args: BilevelOfflineRLConfig) -> np.ndarray:
    """ℓ_i(ψ) of every row, ψ fitted to the rows themselves."""
    cache_dir = Path(args.cache_dir) if args.cache_dir else None
    store.states = action_states(model, store, getattr(torch, args.states_dtype), cache_dir)
    heads = ValueHeads(value_heads_config(model, args, store)).to(next(model.parameters()).device)
    initialize_value_heads(heads, model, store, init=args.value_head_init, cql_weight=args.cql_weight, seed=args.seed)
    fitter = HeadFitter(heads, store, args)
    return fitter.policy_losses(fit_to_pool(fitter, len(store), args.seed), np.arange(len(store)))


def _lowest(values: np.ndarray, fraction: float) -> np.ndarray:
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must lie in (0, 1], got {fraction}")
    count = max(1, round(fraction * len(values)))
    return np.sort(np.argsort(values, kind="stable")[:count])
