"""Trusted rows that are kept out of training, to measure how far the weights can be trusted."""

import numpy as np
from datasets import Dataset

from boost_trl.trainer.sft_example_ids import EXAMPLE_ID
from boost_trl.trainer.sft_labels import rows_without_prediction


CONFIDENCE_NAME = "weight_confidence.json"
MOST_KEPT_ASIDE = 64
FEWEST_KEPT_ASIDE = 4
MOST_TRUSTED = 256
MOST_OF_POOL = 512


def keep_aside(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """
    `dataset` without a random share of its rows, and these: at most 64, and none if they were fewer than 4.

    Args:
        dataset ([`~datasets.Dataset`]): the validation set.
        share (`float`): in [0, 1).
        seed (`int`): fixes which.
    """
    count = min(int(share * len(dataset)), MOST_KEPT_ASIDE)
    if count < FEWEST_KEPT_ASIDE:
        return dataset, None
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.select(np.sort(order[count:])), dataset.select(np.sort(order[:count]))


def trusted_evaluation_rows(eval_dataset) -> Dataset | None:
    """Up to 256 rows of the evaluation set, or of the first of several; `None` if it is none that can be read by row."""
    if isinstance(eval_dataset, dict):
        eval_dataset = next(iter(eval_dataset.values()), None)
    if not isinstance(eval_dataset, Dataset) or not len(eval_dataset) or eval_dataset.format["type"] == "custom":
        return None
    return sample(eval_dataset, MOST_TRUSTED, seed=0)


def sample(dataset: Dataset, most: int, seed: int) -> Dataset:
    """At most `most` random rows, in their order."""
    if len(dataset) <= most:
        return dataset
    return dataset.select(np.sort(np.random.default_rng(seed).choice(len(dataset), most, replace=False)))


def numbered(dataset: Dataset) -> Dataset | None:
    """Prepared rows that have a token to predict, numbered; `None` if there is none, or labels are made with each batch."""
    if "labels" not in dataset.column_names:
        return None
    kept = np.setdiff1d(np.arange(len(dataset)), rows_without_prediction(dataset))
    if not len(kept):
        return None
    return dataset.select(kept).add_column(EXAMPLE_ID, np.arange(len(kept), dtype=np.int32))
