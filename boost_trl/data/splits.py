"""Train, validation and evaluation splits by task category ([B] E.4), and the low-data subsample."""

import random
from typing import NamedTuple

from datasets import Dataset


class CategorySplit(NamedTuple):
    """The three datasets and the categories behind them."""

    train: Dataset
    validation: Dataset
    evaluation: Dataset
    train_categories: list[str]
    heldout_categories: list[str]


def split_by_category(
    dataset: Dataset,
    train_task_frac: float = 0.6,
    val_split: float = 0.3,
    seed: int = 0,
    column: str = "category",
) -> CategorySplit:
    """Split trajectories by category: `train_task_frac` of the categories train; of every other category's
    trajectories `val_split` validate and the rest evaluate.

    Args:
        dataset (`Dataset`): trajectories with a category column.
        train_task_frac (`float`, *optional*, defaults to `0.6`): share of the categories that train, in (0, 1).
        val_split (`float`, *optional*, defaults to `0.3`): share of a held-out category's rows that validate, in (0, 1).
        seed (`int`, *optional*, defaults to `0`): fixes the partition for all methods that are compared.
        column (`str`, *optional*, defaults to `"category"`): the column that holds the category.

    Returns:
        `CategorySplit`: rows keep their order within each split.

    Raises:
        ValueError: if the column is missing or has empty entries, a share is outside (0, 1), or a split comes out empty.
    """
    for field, share in (("train_task_frac", train_task_frac), ("val_split", val_split)):
        if not 0 < share < 1:
            raise ValueError(f"`{field}` must lie strictly between 0 and 1, got {share}")
    if column not in dataset.column_names:
        raise ValueError(
            f"the dataset has no column `{column}` to split by, only {dataset.column_names}; add it, or give the validation "
            "rows yourself (`validation_dataset_name` on the command line)"
        )
    labels = dataset[column]
    rows_of: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        if not label:
            raise ValueError(f"row {row} has no `{column}`; every trajectory needs one to be split by")
        rows_of.setdefault(label, []).append(row)

    rng = random.Random(seed)
    categories = sorted(rows_of)
    rng.shuffle(categories)
    num_train = round(train_task_frac * len(categories))
    train_categories, heldout = sorted(categories[:num_train]), sorted(categories[num_train:])
    validation, evaluation = [], []
    for category in heldout:
        rows = list(rows_of[category])
        rng.shuffle(rows)
        cut = round(val_split * len(rows))
        validation += rows[:cut]
        evaluation += rows[cut:]
    chosen = {
        "train": sorted(row for category in train_categories for row in rows_of[category]),
        "validation": sorted(validation),
        "evaluation": sorted(evaluation),
    }
    for split, rows in chosen.items():
        if not rows:
            raise ValueError(
                f"the {split} split is empty: {len(dataset)} rows in {len(categories)} categories do not allow "
                f"`train_task_frac`={train_task_frac} and `val_split`={val_split}"
            )
    train, validation, evaluation = (dataset.select(rows) for rows in chosen.values())
    return CategorySplit(train, validation, evaluation, train_categories, heldout)


def subsample(dataset: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """The low-data setting: a random `fraction` of the rows (at least one), in their order.

    Raises:
        ValueError: if `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` must lie in (0, 1], got {fraction}")
    rows = random.Random(seed).sample(range(len(dataset)), max(1, round(fraction * len(dataset))))
    return dataset.select(sorted(rows))
