"""Results of the learned weights: rows to keep, how much of the pool they cover, how far they can be trusted."""

import math

import numpy as np
from accelerate.logging import get_logger
from datasets import Dataset

from boost_trl.selection import Selector, WeightConfidence, weights_auc
from boost_trl.trainer.row_weights.config import RowWeightsConfig
from boost_trl.trainer.row_weights.example_ids import NO_EXAMPLE, with_ids
from boost_trl.trainer.row_weights.prepared_rows import rows_also_in, rows_without_prediction, tokens_of_places


logger = get_logger(__name__)

DEFAULT_WEIGHT_COLUMN = "weight"  # what `example_weights` and `export_selected` call it


def select_top_rows(
    dataset: Dataset, weights: list[float] | np.ndarray, top_fraction: float, column: str = DEFAULT_WEIGHT_COLUMN
) -> Dataset:
    """The share `top_fraction` of rows with the largest weights, in their order, with their weights in `column`, of
    mean one.

    Raises:
        ValueError: for another number of rows than weights, a `top_fraction` outside of (0, 1], or one that would have
            to choose among rows of equal weight only.
        TypeError: if `dataset` is not a [`~datasets.Dataset`].
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"`dataset` must be a `Dataset`, got `{type(dataset).__name__}`; a stream can be read into one with "
            "`Dataset.from_list(list(stream))`"
        )
    if not 0 < top_fraction <= 1:
        raise ValueError(f"`top_fraction` must be in (0, 1], got {top_fraction}")
    if len(dataset) != len(weights):
        raise ValueError(f"`dataset` has {len(dataset)} rows, but the weights belong to {len(weights)}")
    values = np.array(weights, dtype=np.float32)
    positive = values[values > 0]
    order = np.argsort(-values, kind="stable")[: max(1, round(top_fraction * len(values)))]
    kept = np.sort(order[values[order] > 0])
    if len(kept) < len(positive) and (positive == positive[0]).all():
        raise ValueError(
            f"all weights are equal, so nothing says which {len(kept)} of {len(positive)} rows to keep: nothing has been "
            "learned yet, or the selector learns no weights ('mixing', 'uniform'); train first, with one that does, or "
            "keep all rows with `top_fraction=1`"
        )
    if column in dataset.column_names:
        dataset = dataset.remove_columns(column)
    return dataset.select(kept).add_column(column, values[kept] / values[kept].mean())


class AnswerTokens:
    """The distinct answer tokens of up to `max_rows` random rows of a prepared dataset, read once.

    What it keeps does not grow with the dataset: about 4 MB for 4,096 rows of 100 different tokens each.

    Args:
        dataset ([`~datasets.Dataset`]): prepared rows, packed or not, with `labels` and row numbers.
        max_rows (`int`, *optional*, defaults to `4096`): all rows are read if there are no more.
        seed (`int`, *optional*, defaults to `0`): fixes which.
    """

    def __init__(self, dataset: Dataset, max_rows: int = 4096, seed: int = 0):
        places = np.random.default_rng(seed).choice(len(dataset), min(len(dataset), max_rows), replace=False)
        keys, num_rows = [np.zeros(0, np.int64)], 0
        for place, ids, labels in tokens_of_places(dataset.select(places)):
            rows_per_place = np.bincount(np.unique(place << 32 | (ids + 1)) >> 32)
            before = num_rows + np.cumsum(rows_per_place) - rows_per_place
            num_rows += rows_per_place.sum()
            is_read = before[place] < max_rows  # packed: one place holds several rows
            keys.append(np.unique((ids << 32 | labels)[is_read & (labels != -100) & (ids != NO_EXAMPLE)]))
            if num_rows >= max_rows:
                break
        keys = np.concatenate(keys)
        pairs = keys >> 32, keys & 0xFFFFFFFF
        self.rows, rows = np.unique(pairs[0], return_inverse=True)
        self._row, self._token = rows.astype(np.int32), pairs[1].astype(np.int32)
        self._num_tokens = len(np.unique(self._token))

    def coverage(self, selector: Selector) -> float | None:
        """The number of distinct answer tokens in the rows of largest weight, divided by that in all rows that were
        read.

        As many rows are taken as make up the effective sample size: ⌈n_eff⌉, or that share of the rows that were read.
        `None` if no row has a label.
        """
        if not len(self.rows):
            return None
        share = selector.effective_sample_size() / selector.num_examples
        count = min(len(self.rows), math.ceil(share * len(self.rows) - 1e-6))  # n_eff of equal weights is rounded
        top = np.argsort(-selector.weights(self.rows).numpy(), kind="stable")[: max(count, 1)]
        is_top = np.zeros(len(self.rows), dtype=bool)
        is_top[top] = True
        return len(np.unique(self._token[is_top[self._row]])) / self._num_tokens


CONFIDENCE_NAME = "weight_confidence.json"
MOST_KEPT_ASIDE = 64
FEWEST_KEPT_ASIDE = 4
MOST_TRUSTED = 256
MOST_OF_POOL = 512


def keep_aside(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """`dataset` without a random share of its rows, and these: at most 64, and none if they were fewer than 4.

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
    return with_ids(dataset.select(kept))


def selector_metrics(
    selector: Selector, labels: np.ndarray | None, answer_tokens: AnswerTokens | None
) -> dict[str, float]:
    """Metrics of the weights: `selector/n_eff`, `selector/entropy`, `selector/max_weight`, `selector/share_seen` and,
    where they are known, `selector/auc` against `labels`, (N,) bool, and `selector/coverage`.
    """
    metrics = {
        "selector/n_eff": selector.effective_sample_size(),
        "selector/entropy": selector.entropy(),
        "selector/max_weight": selector.largest_weight(),
        "selector/share_seen": selector.share_seen(),
    }
    found = {
        "selector/auc": None if labels is None else weights_auc(selector.logits().numpy(), labels),
        "selector/coverage": None if answer_tokens is None else answer_tokens.coverage(selector),
    }
    return metrics | {name: value for name, value in found.items() if value is not None}


def trusted_rows(
    validation_dataset: Dataset, eval_dataset, args: RowWeightsConfig, may_keep_aside: bool
) -> tuple[Dataset, Dataset | None]:
    """The rest of the validation set, and raw rows by which to measure how far the weights can be trusted: those of the
    evaluation set, else a share of the validation set, which is said in the log.

    Args:
        may_keep_aside (`bool`): whether rows of the validation set are like those of the pool.
    """
    trusted = trusted_evaluation_rows(eval_dataset)
    if trusted is not None or not may_keep_aside:
        return validation_dataset, trusted
    count = len(validation_dataset)
    validation_dataset, trusted = keep_aside(validation_dataset, args.confidence_share, args.seed)
    if trusted is not None:
        logger.warning(
            f"{len(trusted)} of {count} rows of `validation_dataset` are kept out of training, to measure how far the weights "
            "can be trusted. Give trusted rows as `eval_dataset`, or set `confidence_share=0`, to train on all of them."
        )
    return validation_dataset, trusted


def warn_of_trained_rows(trusted: Dataset, train_dataset: Dataset, validation_dataset: Dataset) -> None:
    """Say in the log how many of the rows that measure the weights are trained on as well, which makes them look better.

    Args:
        trusted, train_dataset, validation_dataset (`Dataset`): prepared.
    """
    for name, dataset in (("train_dataset", train_dataset), ("validation_dataset", validation_dataset)):
        count = rows_also_in(trusted, dataset)
        if count:
            logger.warning(
                f"{count} of the {len(trusted)} rows that measure how far the weights can be trusted are trained on too: they "
                f"stand in `{name}` as well, and make the weights look better than they are; take them out of it."
            )


def warn_of_chance(confidence: WeightConfidence | None) -> None:
    """Say in the log that trusted rows do not agree with the weights."""
    if confidence is not None and confidence.is_near_chance:
        logger.warning(
            f"{confidence.verdict()} Compare with `selector='uniform'` before you use them "
            '(docs/selector.md, "How far to trust them").'
        )
