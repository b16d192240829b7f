"""Checks before any training: data and losses that cannot carry example weights."""

import math
from collections.abc import Callable

import numpy as np
from datasets import Dataset, IterableDataset
from trl import SFTConfig
from trl.import_utils import is_vllm_available

from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig
from boost_trl.trainer.row_weights.checks import changed_settings, listed
from boost_trl.trainer.row_weights.row_checks import check_cells, check_rows, is_prepared


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
            f"for streaming data only: {listed(given)}. `train_dataset` is a `Dataset`, whose rows have numbers and "
            "weights of their own; leave this out, or stream it with `train_dataset.to_iterable_dataset()`"
        )


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
