"""Arguments of [`BilevelOfflineRLTrainer`] that cannot work, refused before anything is loaded."""

from datasets import Dataset
from transformers import TrainingArguments

from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


def check_unused(optimizers: tuple, **arguments) -> None:
    """Refuse arguments of `SFTTrainer` that have no meaning for this trainer.

    Raises:
        ValueError: naming the first that is not `None`, or for an optimizer that is built already.
    """
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"`{name}` has no meaning for BilevelOfflineRLTrainer; leave it out")
    if optimizers[0] is not None:
        raise ValueError(
            "an optimizer built before the trainer cannot hold the value heads; pass `optimizer_cls_and_kwargs`"
        )


def as_config(args: TrainingArguments | None) -> BilevelOfflineRLConfig:
    """The configuration, made from default values or from plain `TrainingArguments` where it is none yet."""
    if args is None:
        return BilevelOfflineRLConfig("bilevel-offline-rl")
    if isinstance(args, BilevelOfflineRLConfig):
        return args
    # As TRL's trainers do; `to_dict` hides the token.
    return BilevelOfflineRLConfig(**{**args.to_dict(), "hub_token": args.hub_token})


def named_datasets(eval_dataset: Dataset | dict[str, Dataset] | None) -> dict[str, Dataset]:
    """Evaluation datasets by name; a single one has the empty name."""
    if eval_dataset is None:
        return {}
    return dict(eval_dataset) if isinstance(eval_dataset, dict) else {"": eval_dataset}


def check_datasets(
    args: BilevelOfflineRLConfig, train_dataset, validation_dataset, eval_dataset: Dataset | dict | None
) -> None:
    """Check the datasets before anything is tokenised.

    Raises:
        ValueError: for a dataset of another type, or one that `args.method` needs or never sees.
    """
    if train_dataset is None:
        raise ValueError("`train_dataset` is required")
    held_out = {
        f"eval_dataset[{name!r}]" if name else "eval_dataset": d for name, d in named_datasets(eval_dataset).items()
    }
    for name, dataset in {
        "train_dataset": train_dataset,
        "validation_dataset": validation_dataset,
        **held_out,
    }.items():
        if dataset is not None and not isinstance(dataset, Dataset):
            raise ValueError(
                f"`{name}` is a {type(dataset).__name__}; it must be a `datasets.Dataset`, because every row is read "
                "before training: load it without streaming, choose a split, or use `Dataset.from_list(rows)`"
            )
    if args.uses_validation and validation_dataset is None:
        raise ValueError(
            f"`method={args.method!r}` is guided by a validation set: pass `validation_dataset=`, or set "
            "`method='vanilla'` to train without one"
        )
    if not args.uses_validation and validation_dataset is not None:
        raise ValueError("`method='vanilla'` never sees validation data: leave `validation_dataset` out")
