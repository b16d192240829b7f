"""Checks before any training: data, losses and engines that cannot carry weights of preference pairs."""

import math

from datasets import Dataset

from boost_trl.losses.preference import PAIR_LOSSES
from boost_trl.trainer.bilevel_dpo_config import BilevelDPOConfig
from boost_trl.trainer.dpo.answers import answer_settings
from boost_trl.trainer.row_weights.row_checks import check_cells, check_rows


_PAIR = ("prompt", "chosen", "rejected")


def check_before_preparation(args: BilevelDPOConfig, train_dataset, validation_dataset) -> None:
    """Check what learned or fixed weights need.

    Raises:
        ValueError: for rows without pairs of answers, a loss that is not one of single pairs, or a ρ that leaves its range.
        TypeError: for a dataset that is no [`~datasets.Dataset`].
    """
    check_loss_can_be_weighted(args)
    for name, dataset in (("train_dataset", train_dataset), ("validation_dataset", validation_dataset)):
        if dataset is not None and not isinstance(dataset, Dataset):
            raise TypeError(
                f"`{name}` must be a `Dataset`, got `{type(dataset).__name__}`; a stream can be read into one with "
                "`Dataset.from_list(list(stream))`"
            )
        if dataset is not None and len(dataset) == 0:
            raise ValueError(f"`{name}` is empty; give it rows, or leave it out")
    check_pairs(train_dataset, "train_dataset")
    if validation_dataset is None:
        return
    if args.validation_loss == "dpo":
        check_pairs(validation_dataset, "validation_dataset")
    elif {"chosen", "rejected"} <= {*validation_dataset.column_names}:
        raise ValueError(
            "`validation_dataset` has preference rows ('chosen', 'rejected'): set `validation_loss='dpo'`"
        )
    else:
        check_rows(validation_dataset, "validation_dataset", answer_settings(args))
    if args.max_steps <= 0:
        # With `max_steps` the number of epochs is known only once the data is; the schedule is then checked as it is made.
        if not 0 < args.num_train_epochs < math.inf:
            raise ValueError(f"`num_train_epochs` must be positive and finite, got {args.num_train_epochs}")
        args.penalty_schedule(args.num_train_epochs)


def check_pairs(dataset: Dataset, name: str) -> None:
    """Raises:
    ValueError: for rows that are no preference pairs of text.
    """
    columns = {*dataset.column_names}
    missing = sorted({"chosen", "rejected"} - columns)
    if missing:
        raise ValueError(
            f"`{name}` must have rows with 'prompt', 'chosen' and 'rejected'; it has no {missing}, only {sorted(columns)}"
        )
    if columns & {"image", "images"}:
        raise ValueError(
            f"`{name}` has images, whose pairs cannot be weighted yet; leave them and `validation_dataset` out"
        )
    if dataset.format["type"] == "custom":
        raise ValueError(
            f"`{name}` uses `with_transform`, which hides the rows that weights belong to; materialise it with `Dataset.map`"
        )
    check_cells(dataset, name, [column for column in _PAIR if column in columns])


def check_loss_can_be_weighted(args: BilevelDPOConfig) -> None:
    """Raises:
    ValueError: for settings under which the loss is not a mean over losses of single pairs, by a fixed reference.
    """
    if len(args.loss_type) != 1 or args.loss_type[0] not in PAIR_LOSSES:
        raise ValueError(
            f"`loss_type` must be one of {', '.join(map(repr, PAIR_LOSSES))} for pairs to be weighted, got {args.loss_type}"
        )
    for name, plain in (
        ("loss_weights", None),
        ("ld_alpha", None),
        ("f_divergence_type", "reverse_kl"),
        ("use_weighting", False),
        ("sync_ref_model", False),
    ):
        if getattr(args, name) != plain:
            raise ValueError(
                f"`{name}` must be {plain!r} for pairs to be weighted, got {getattr(args, name)!r}; or leave out "
                "`validation_dataset` and `weight_column`"
            )


def check_engine(is_fsdp_enabled: bool) -> None:
    """Raises:
    ValueError: for an engine that leaves no whole model to compute the reference's log-probabilities with.
    """
    if is_fsdp_enabled:
        raise ValueError(
            "pairs cannot be weighted under FSDP, which keeps no reference model; use DDP or DeepSpeed, or leave out "
            "`validation_dataset` and `weight_column`"
        )
