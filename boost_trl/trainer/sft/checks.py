"""Checks before any training: data, losses and engines that cannot carry example weights, settings without effect."""

import math
from collections.abc import Callable
from dataclasses import fields

import numpy as np
from accelerate import ParallelismConfig
from accelerate.logging import get_logger
from datasets import Dataset, IterableDataset
from trl import SFTConfig
from trl.import_utils import is_vllm_available

from boost_trl.selection import Selector
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.sft.results import DEFAULT_WEIGHT_COLUMN
from boost_trl.trainer.sft.row_checks import check_cells, check_rows, is_prepared


logger = get_logger(__name__)

_READ_BY_SELECTOR = {
    "validated": ("target_effective_fraction", "selection_guard", "selection_rounds", "adaptation_learning_rate"),
    "rank": ("keep_fraction", "rank_refresh_steps", "rho_increment"),
    "bds": ("selector_optimizer", "selector_learning_rate", "selector_max_step", "rho_increment"),
    "bmo": ("selector_learning_rate", "bmo_tau", "rho_increment"),
    "bmo_exact": ("bmo_tau", "bmo_refresh_steps", "rho_increment"),
    "mixing": (),
    "uniform": ("rho_increment",),
}
_SAMPLING = "train_sampling_strategy"  # older versions of transformers have none


def check_before_preparation(
    args: BilevelSFTSelfRefineConfig,
    validation_loss: str | Callable,
    train_dataset,
    validation_dataset,
    formatting_func: Callable | None,
) -> None:
    """Raises:
    ValueError: for settings that do not go with the data, a validation set that cannot be used, or a ρ that leaves its
        range.
    TypeError: for a validation set that is no [`~datasets.Dataset`].
    ImportError: for `use_vllm` without vLLM.
    """
    learned = validation_dataset is not None
    check_online(args, train_dataset, learned)
    if not learned:
        return
    check_validation_dataset(validation_dataset, args, validation_loss, formatting_func)
    if isinstance(train_dataset, Dataset):
        check_not_streaming(args)
    if args.max_steps <= 0:
        # With `max_steps` the number of epochs is known only once the data is; the schedule is then checked as it is made.
        if not 0 < args.num_train_epochs < math.inf:
            raise ValueError(f"`num_train_epochs` must be positive and finite, got {args.num_train_epochs}")
        args.penalty_schedule(args.num_train_epochs)


def check_loss_can_be_weighted(args: BilevelSFTSelfRefineConfig, compute_loss_func) -> None:
    """Check that the loss is a sum over examples.

    Raises:
        ValueError: for a loss that is not a sum over tokens of TRL's own.
    """
    if compute_loss_func is not None:
        raise ValueError(
            "`compute_loss_func` returns one number for the whole batch, so examples cannot be weighted in it; leave it "
            "out, or train without `validation_dataset` and without a weight column"
        )
    if args.label_smoothing_factor > 0 and args.loss_type == "nll":
        raise ValueError(
            "`label_smoothing_factor` computes one number for the whole batch, so examples cannot be weighted in it; "
            "set it to 0"
        )


def check_parallelism(parallelism: ParallelismConfig | None, tp_size: int, padding_free: bool, learned: bool) -> None:
    """Raises:
    ValueError: for a parallelism that splits rows in a way that weights do not follow.
    """
    if parallelism is not None and parallelism.sp_enabled:
        raise ValueError(
            "sequence parallelism (Ulysses/ALST) reduces the model's own loss across processes, so examples cannot be "
            "weighted in it; use `sp_size=1`"
        )
    if parallelism is not None and parallelism.cp_enabled:
        if learned:
            raise ValueError(
                "learned example weights need whole sequences for the validation batch; context parallelism splits them; "
                "use `cp_size=1`. (A fixed weight column works with it.)"
            )
        if padding_free:
            raise ValueError(
                "context parallelism carries one weight per row of the batch only, and `padding_free` puts several "
                "examples into one; use `padding_free=False` or `cp_size=1`"
            )
    if learned and tp_size > 1:
        raise ValueError(
            "learned example weights are not supported with tensor parallelism, where several processes hold the same "
            "batch; use `tp_size=1`"
        )


def check_validation_dataset(
    dataset, args: BilevelSFTSelfRefineConfig, loss: str | Callable, formatting_func: Callable | None
) -> None:
    """Check the validation set before it is prepared.

    Raises:
        ValueError: for a validation set that is empty, or whose columns or cells the loss cannot use.
        TypeError: if it is not a [`~datasets.Dataset`].
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"`validation_dataset` must be a `Dataset`, got `{type(dataset).__name__}`; a stream can be read into one "
            "with `Dataset.from_list(list(stream))`"
        )
    if len(dataset) == 0:
        raise ValueError("`validation_dataset` is empty: there is nothing to select the training data by")
    columns = set(dataset.column_names)
    preferences = {"chosen", "rejected"}
    if loss == "dpo":
        if not preferences <= columns:
            raise ValueError(
                "validation_loss='dpo' needs rows with 'prompt', 'chosen' and 'rejected'; `validation_dataset` has no "
                f"{sorted(preferences - columns)}, only {sorted(columns)}"
            )
        check_cells(dataset, "validation_dataset", [c for c in ("prompt", "chosen", "rejected") if c in columns])
        return
    if loss == "sft" and preferences <= columns:
        raise ValueError(
            "`validation_dataset` has preference rows ('chosen', 'rejected'): set `validation_loss='dpo'`"
        )
    if formatting_func is not None and not is_prepared(dataset, args):
        try:
            formatting_func(dataset[0])
        except Exception as error:
            raise ValueError(
                f"`formatting_func` fails on the first row of `validation_dataset`, which has {sorted(columns)}: "
                f"{type(error).__name__}: {error}; give it the columns of `train_dataset`"
            ) from error
    check_rows(dataset, "validation_dataset", args, formatting_func)


def check_datasets(
    train_dataset, eval_dataset, args: SFTConfig, formatting_func: Callable | None, left_out: np.ndarray | None
) -> None:
    """Check the rows of training and evaluation before they are prepared.

    Args:
        left_out (`np.ndarray`, *optional*): numbers of training rows that are never read.

    Raises:
        ValueError: for an evaluation set that is empty, or columns or cells that cannot be read.
        TypeError: for an evaluation set that is no dataset.
    """
    if isinstance(train_dataset, (Dataset, IterableDataset)):
        check_rows(train_dataset, "train_dataset", args, formatting_func, left_out)
    named = eval_dataset if isinstance(eval_dataset, dict) else {None: eval_dataset}
    for name, dataset in named.items():
        label = "eval_dataset" if name is None else f"eval_dataset[{name!r}]"
        if isinstance(dataset, (Dataset, IterableDataset)):
            check_rows(dataset, label, args, formatting_func)
        elif (dataset is not None or name is not None) and not (args.dataset_kwargs or {}).get("skip_prepare_dataset"):
            raise TypeError(f"`{label}` must be a `Dataset` or an `IterableDataset`, got `{type(dataset).__name__}`")


def check_not_streaming(args: BilevelSFTSelfRefineConfig) -> None:
    """Check that fields for streaming data come with streaming data.

    Raises:
        ValueError: for settings that only streaming data has a use for.
    """
    given = [
        name
        for name in ("example_id_column", "num_examples", "source_column", "source_names")
        if name in changed_settings(args)
    ]
    if given:
        raise ValueError(
            f"for streaming data only: {_listed(given)}. `train_dataset` is a `Dataset`, whose rows have numbers and "
            "weights of their own; leave this out, or stream it with `train_dataset.to_iterable_dataset()`"
        )


def changed_settings(args: BilevelSFTSelfRefineConfig) -> list[str]:
    """Our own settings that differ from their defaults."""
    ours = {field.name for field in fields(BilevelSFTSelfRefineConfig)} - {field.name for field in fields(SFTConfig)}
    return [
        f.name for f in fields(BilevelSFTSelfRefineConfig) if f.name in ours and getattr(args, f.name) != f.default
    ]


def ignored_settings_warning(args: BilevelSFTSelfRefineConfig, has_weight_column: bool) -> str | None:
    """Warning for training without a validation set; `None` if all settings have their effect."""
    names = [name for name in changed_settings(args) if name != "weight_column"]
    if not names:
        return None
    what = "no weights are learned" if has_weight_column else "this is plain supervised fine-tuning"
    return f"No `validation_dataset` is given, so {what}. Without effect: {_listed(names)}."


def unread_settings_warning(args: BilevelSFTSelfRefineConfig) -> str | None:
    """Warning for settings of other selectors; `None` if all have their effect."""
    others = set().union(*_READ_BY_SELECTOR.values()) - set(_READ_BY_SELECTOR[args.selector])
    names = [name for name in changed_settings(args) if name in others]
    # Rows are drawn by weight unless they are packed.
    if args.selector == "validated" and not args.packing and getattr(args, _SAMPLING, "random") != "random":
        names.append(_SAMPLING)
    return f"Without effect with selector='{args.selector}': {_listed(names)}." if names else None


def unused_weight_column_warning(dataset, args: BilevelSFTSelfRefineConfig) -> str | None:
    """Warning for a column named `weight` that nothing reads; a stream of unknown columns is not asked."""
    if args.weight_column is not None or DEFAULT_WEIGHT_COLUMN not in (getattr(dataset, "column_names", None) or ()):
        return None
    return (
        f"`train_dataset` has a column '{DEFAULT_WEIGHT_COLUMN}' that is not used. If it holds example weights, set "
        f"`weight_column='{DEFAULT_WEIGHT_COLUMN}'`."
    )


def warn_of_what_is_not_used(dataset, args: BilevelSFTSelfRefineConfig, learned: bool, weighted: bool) -> None:
    """Say in the log which of our settings and columns have no effect."""
    unread = unread_settings_warning(args) if learned else ignored_settings_warning(args, has_weight_column=weighted)
    warnings = [unused_weight_column_warning(dataset, args), unread]
    for warning in warnings:
        if warning is not None:
            logger.warning(warning)


def warn_of_single_visit(selector: Selector, num_epochs: float) -> None:
    """Say in the log that weights have no effect where training visits no row twice."""
    if selector.needs_second_visit and num_epochs <= 1 + 1e-6:
        logger.warning(
            f"selector='{selector.selector}' needs a second visit to weigh a row more or less than others, and training has "
            f"{num_epochs:.3g} epochs: all rows count the same in it, and only the weights that it ends with differ. Raise "
            "`num_train_epochs` (or `max_steps`), or use selector='bmo', which weighs a batch by its own losses."
        )


def explain_objective(objective: float, pool_loss: float, step: int, args: BilevelSFTSelfRefineConfig) -> str:
    """Message for an objective that is not finite, after `step` optimizer steps."""
    causes = "a learning rate that is too high, or a bad row in `train_dataset`"
    if args.online_ratio > 0 and args.importance_sampling_cap is None:
        causes = "importance ratios that explode: set `importance_sampling_cap`, or lower `generation_interval`"
    return (
        f"the loss is {objective} at step {step + 1} (mean weighted loss of the pool: {pool_loss}); the model cannot learn "
        f"from it: look for {causes}"
    )


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def check_online(args: BilevelSFTSelfRefineConfig, train_dataset, learned: bool) -> None:
    """Check that online answers are possible.

    Raises:
        ValueError: for online self-refining without learned weights, or on data that cannot be looked up.
        ImportError: for `use_vllm` without vLLM.
    """
    if args.online_ratio == 0:
        return
    if not learned:
        raise ValueError(
            "`online_ratio` needs `validation_dataset`: without one nothing says which of the model's own answers to trust"
        )
    if isinstance(train_dataset, IterableDataset):
        raise ValueError(
            "`online_ratio` does not work with streaming data: questions are looked up by row; use a `Dataset`, or "
            "`online_ratio=0`"
        )
    if args.use_vllm and not is_vllm_available():
        raise ImportError("`use_vllm=True` needs vLLM: `pip install trl[vllm]`; or leave `use_vllm` out")
