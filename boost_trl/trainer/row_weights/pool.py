"""The training rows that weights belong to: their numbers, fixed weights and labels."""

from functools import cached_property

import numpy as np
import torch
from accelerate.logging import get_logger
from datasets import Dataset, IterableDataset

from boost_trl.data.first_words import first_words_of
from boost_trl.trainer.common.weight_files import KIND_COLUMNS
from boost_trl.trainer.row_weights.config import RowWeightsConfig
from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID, with_ids
from boost_trl.trainer.row_weights.prepared_rows import fingerprint, renumber, rows_to_learn


logger = get_logger(__name__)

_LARGEST_WEIGHT = float(np.finfo(np.float32).max)


class Pool:
    """The rows of a map-style training dataset that are trained on, numbered from 0 in their order: those of fixed
    weight 0 are left out at once, those of which preparation leaves nothing by [`keep`].

    Args:
        dataset ([`~datasets.Dataset`]): the training data as the user gave it.
        args ([`RowWeightsConfig`]): names the columns.

    Attributes:
        num_examples (`int`): N, the number of row numbers.
        fingerprint (`str`): of the rows and their order.
        labels (`np.ndarray` or `None`): (N,) bool.
        original (`Dataset`): `dataset`.

    Raises:
        ValueError: for an empty dataset, a weight that is negative or not a finite number, or a label that is not true or
            false.
    """

    def __init__(self, dataset: Dataset, args: RowWeightsConfig):
        if len(dataset) == 0:
            raise ValueError("`train_dataset` is empty")
        self.num_original = len(dataset)
        self.original = dataset
        _check_weight_column(dataset.column_names, args.weight_column)
        weights = _fixed_weights(dataset, args.weight_column)
        self.labels = _labels(dataset, args.label_column)
        self._kept: np.ndarray | None = None
        if weights is not None and not weights.all():
            self._kept = np.flatnonzero(weights)
            weights = weights[self._kept]
            if not len(weights):
                raise ValueError(
                    f"`train_dataset`, column '{args.weight_column}': all rows have weight 0; train on some"
                )
            dataset = dataset.select(self._kept)
            self.labels = None if self.labels is None else self.labels[self._kept]
        self.num_examples = len(dataset)
        self._fixed = None if weights is None else torch.from_numpy(weights)
        self._rows = dataset

    @property
    def fingerprint(self) -> str:
        return fingerprint(self._rows)

    @cached_property
    def _first_words(self) -> list[str]:
        return first_words_of(self.original)

    def keep(self, numbers: np.ndarray) -> None:
        """Leave out all but these rows, which are numbered from 0 again. The fingerprint stays that of all."""
        self._kept = numbers if self._kept is None else self._kept[numbers]
        self.labels = None if self.labels is None else self.labels[numbers]
        self._fixed = None if self._fixed is None else self._fixed[numbers]
        self.num_examples = len(numbers)

    def identified(self) -> Dataset:
        """The kept rows with their numbers in a column of their own."""
        return with_ids(self._rows)

    @property
    def left_out(self) -> np.ndarray | None:
        """The places in the user's dataset of the rows of fixed weight 0."""
        return None if self._kept is None else np.setdiff1d(np.arange(self.num_original), self._kept)

    def original_row(self, number: int) -> int:
        """The place in the user's dataset of a row number."""
        return number if self._kept is None else int(self._kept[number])

    def name_of(self, number: int) -> str:
        """Name of the row of this number in messages."""
        return f"row {self.original_row(number)} of `train_dataset`"

    def fixed_weights(self, ids: torch.Tensor) -> torch.Tensor | None:
        """The fixed weights of some rows, float32 on the device of `ids`; `None` without a weight column."""
        return None if self._fixed is None else self._fixed[ids.cpu()].to(ids.device)

    def table(self, weights: torch.Tensor, scores: torch.Tensor) -> Dataset:
        """One row per original training row: `index`, `weight`, `score`, `text` (its first words) and, where known,
        `source`, `category` and other kinds of row.

        Args:
            weights (`torch.Tensor`): (N,) learned weights. They are multiplied by the fixed ones.
            scores (`torch.Tensor`): (N,) logits. Rows that are left out get weight 0 and score -inf.
        """
        weights, scores = weights.numpy(), scores.numpy()
        if self._fixed is not None:
            weights = weights * self._fixed.numpy()
        if self._kept is not None:
            dense = np.zeros(self.num_original, dtype=np.float32), np.full(self.num_original, -np.inf, np.float32)
            dense[0][self._kept], dense[1][self._kept] = weights, scores
            weights, scores = dense
        columns = {
            "index": np.arange(self.num_original),
            "weight": weights,
            "score": scores,
            "text": self._first_words,
        }
        for name in KIND_COLUMNS:
            if name in self.original.column_names:
                columns[name] = self.original.with_format(None)[name][:]
        return Dataset.from_dict(columns)


class StreamedPool:
    """The rows of a streaming dataset: numbered by a column of the user's, or sharing a weight by source.

    Args:
        dataset ([`~datasets.IterableDataset`]): the training data as the user gave it.
        columns (`list[str]`): its columns.
        args ([`RowWeightsConfig`]): names the columns.
        learned (`bool`): whether weights are learned, or only a weight column is used.

    Raises:
        ValueError: if rows cannot be told apart, or the configuration asks for what needs a known order of rows.
    """

    labels = None
    fingerprint = None
    left_out = None

    def __init__(self, dataset: IterableDataset, columns: list[str], args: RowWeightsConfig, learned: bool):
        _check_weight_column(columns, args.weight_column)
        self._dataset = dataset
        self._args = args
        self._weighted = args.weight_column is not None
        self._sources = args.source_names or []
        self._learned = learned
        self.has_unique_ids = learned and args.example_id_column is not None
        self._seen: np.ndarray | None = None
        self._first: np.ndarray | None = None
        if not learned:
            return
        if self._weighted:
            raise ValueError(
                f"streaming data with a fixed '{args.weight_column}' column cannot have learned weights as well; "
                "leave out `weight_column` or `validation_dataset`"
            )
        for name, needed in (
            ("label_column", args.label_column),
            ("bmo_exact", args.selector == "bmo_exact"),
            ("selector='validated'", args.selector == "validated"),
        ):
            if needed:
                other = "; use `selector='rank'`" if name.startswith("selector") else ""
                raise ValueError(
                    f"`{name}` needs a dataset that can be read more than once: it is not streaming{other}"
                )
        if args.example_id_column is not None:
            if args.num_examples is None:
                raise ValueError("`example_id_column` on streaming data needs `num_examples`, the number of rows")
            column, self.num_examples = args.example_id_column, args.num_examples
        else:
            if not self._sources:
                raise ValueError(
                    "rows of streaming data cannot be told apart by themselves; give `example_id_column` and "
                    "`num_examples` (a column of row numbers), or `source_names` (one weight per value of "
                    f"'{args.source_column}')"
                )
            if len(set(self._sources)) != len(self._sources):
                raise ValueError(f"`source_names` has duplicates: {self._sources}")
            if args.packing and args.selection_loss == "sum":
                raise ValueError(
                    "`selection_loss='sum'` with `source_names` averages rows' sums, and `packing` does not keep where rows "
                    "end; use `selection_loss='mean'`, or `packing=False`"
                )
            column, self.num_examples = args.source_column, len(self._sources)
        if column not in columns:
            raise ValueError(f"the streaming training data has no column '{column}'; it has {sorted(columns)}")

    def identified(self) -> IterableDataset:
        """The stream with row numbers (or the bits of fixed weights) in a column of their own."""
        column = self._args.weight_column
        if column is not None:
            kept = self._dataset.filter(lambda row, i: check_weight(row[column], column, i) > 0, with_indices=True)
            return kept.map(lambda row: {EXAMPLE_ID: int(np.float32(row[column]).view(np.int32))})
        return self._dataset.map(self._number, with_indices=True)

    def _number(self, row: dict, place: int) -> dict[str, int]:
        if not self.has_unique_ids:
            source = row[self._args.source_column]
            if source not in self._sources:
                raise ValueError(
                    f"`train_dataset`, row {place}, column '{self._args.source_column}': {source!r} is not in `source_names`"
                )
            return {EXAMPLE_ID: self._sources.index(source)}
        number = row[self._args.example_id_column]
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < self.num_examples:
            raise ValueError(
                f"`train_dataset`, row {place}, column '{self._args.example_id_column}': is {number!r}; it must hold row "
                f"numbers from 0 to {self.num_examples - 1}"
            )
        if self._args.packing:
            # A row may then lie in several batches, so that only the stream tells how often it came.
            if place == 0 or self._seen is None:
                self._seen = self._none_seen()
            if self._seen[number]:
                raise self._comes_twice(number)
            self._seen[number] = True
        return {EXAMPLE_ID: number}

    def begin_pass(self, from_start: bool) -> None:
        """Forget which rows were seen. A pass that is resumed in its middle is not checked for duplicates."""
        self._seen = self._none_seen() if from_start else None
        self._first = None

    def _none_seen(self) -> np.ndarray:
        return np.zeros(self.num_examples, dtype=bool)

    def repeated(self, ids: np.ndarray, num_processes: int) -> np.ndarray:
        """Row numbers of an optimizer batch that were met before in this pass only because the loader fills the last
        batch of a pass with its first rows, as it does on several processes.

        Raises:
            ValueError: for a row number that comes twice for any other reason.
        """
        if self._seen is None:
            return ids[:0]
        rows, counts = np.unique(ids, return_counts=True)
        twice = rows[self._seen[rows] | (counts > 1)]
        if self._first is None:
            self._first = rows
        wrong = twice if num_processes == 1 else np.setdiff1d(twice, self._first)
        if len(wrong):
            raise self._comes_twice(wrong[0])
        self._seen[rows] = True
        return twice

    def _comes_twice(self, number: int) -> ValueError:
        return ValueError(
            f"row number {number} comes twice in one pass over the streaming training data; the numbers in "
            f"'{self._args.example_id_column}' must all be different"
        )

    def name_of(self, number: int) -> str:
        """Name of the rows of this number in messages."""
        if self.has_unique_ids:
            return f"row number {number} of `train_dataset`"
        return f"source '{self._sources[number]}'"

    def fixed_weights(self, ids: torch.Tensor) -> torch.Tensor | None:
        return ids.to(torch.int32).view(torch.float32) if self._weighted else None

    def table(self, weights: torch.Tensor, scores: torch.Tensor) -> Dataset:
        """One row per row number, or per source: `index`, `weight`, `score` and, by source, `source`."""
        columns = {"index": np.arange(self.num_examples), "weight": weights.numpy(), "score": scores.numpy()}
        if not self.has_unique_ids:
            columns["source"] = self._sources
        return Dataset.from_dict(columns)


def column_names(dataset: Dataset | IterableDataset) -> list[str]:
    """The columns; a stream of unknown columns is asked for its first row, as TRL asks it.

    Raises:
        ValueError: if such a stream is empty.
    """
    if dataset.column_names is not None:
        return dataset.column_names
    first = next(iter(dataset), None)
    if first is None:
        raise ValueError("the streaming `train_dataset` is empty: it has no first row")
    return list(first)


def check_weight(weight, column: str, row: int) -> float:
    """A fixed weight as it is in float32.

    Raises:
        ValueError: unless it is a number of at least 0 that float32 can hold.
    """
    if not isinstance(weight, (int, float)) or not 0 <= weight <= _LARGEST_WEIGHT:
        raise ValueError(
            f"`train_dataset`, row {row}, column '{column}': is {weight!r}; fixed example weights must be finite numbers of at "
            "least 0 (and below 3.4e38); if the column does not hold weights, leave `weight_column` out"
        )
    return float(np.float32(weight))


def _check_weight_column(columns: list[str], column: str | None) -> None:
    if column is not None and column not in columns:
        raise ValueError(
            f"`train_dataset` has no column '{column}' (`weight_column`); it has {sorted(columns)}; name its column of weights, "
            "or leave `weight_column` out"
        )


def _fixed_weights(dataset: Dataset, column: str | None) -> np.ndarray | None:
    if column is None:
        return None
    values = dataset.with_format(None)[column][:]
    return np.array([check_weight(value, column, row) for row, value in enumerate(values)], dtype=np.float32)


def _labels(dataset: Dataset, column: str | None) -> np.ndarray | None:
    if column is None:
        return None
    if column not in dataset.column_names:
        raise ValueError(f"`train_dataset` has no column '{column}' (`label_column`)")
    if str(dataset.features[column].dtype) != "bool":
        raise ValueError(
            f"`train_dataset`, column '{column}' (`label_column`): holds {dataset.features[column].dtype}; it must hold true "
            "or false"
        )
    values = dataset.with_format(None)[column][:]
    if None in values:
        raise ValueError(
            f"`train_dataset`, row {values.index(None)}, column '{column}' (`label_column`): is None; fill in true or false, or "
            "set `label_column=None`"
        )
    return np.array(values)


def make_pool(dataset, args: RowWeightsConfig, learned: bool) -> Pool | StreamedPool | None:
    """The rows to weight, or `None` where nothing is weighted or TRL itself refuses the dataset."""
    if not isinstance(dataset, (Dataset, IterableDataset)):
        return None
    if not learned and args.weight_column is None:
        return None
    if isinstance(dataset, IterableDataset):
        return StreamedPool(dataset, column_names(dataset), args, learned)
    if dataset.format["type"] == "custom":
        if (args.dataset_kwargs or {}).get("skip_prepare_dataset"):
            raise ValueError(
                "`train_dataset` uses `with_transform`, which hides the rows that weights belong to; materialise it with "
                "`Dataset.map`"
            )
        return None
    return Pool(dataset, args)


def leave_out_empty_rows(pool: Pool | StreamedPool, dataset, args: RowWeightsConfig):
    """The prepared dataset without the rows that preparation has dropped, or left without a token to predict: they are none of
    the N. The pool leaves them out as well, and the log says so.

    Raises:
        ValueError: if no row is left.
    """
    if isinstance(pool, StreamedPool) or "labels" not in dataset.column_names:  # as with images
        return dataset
    return leave_out_all_but(rows_to_learn(dataset), pool, dataset, args)


def leave_out_all_but(rows: np.ndarray, pool: Pool, dataset: Dataset, args: RowWeightsConfig) -> Dataset:
    """The prepared dataset with the rows of these numbers, sorted, alone; see [`leave_out_empty_rows`]."""
    count = pool.num_examples
    if len(rows) == count:
        return dataset
    if not len(rows):
        raise ValueError(
            "nothing is left of `train_dataset` after preparation: no row has a token to learn within `max_length` "
            "(the first token of a row is never learned)"
        )
    first = pool.original_row(int(np.setdiff1d(np.arange(count), rows)[0]))
    logger.warning(
        f"{count - len(rows)} of {count} rows of `train_dataset` have no token to learn within `max_length`, row {first} "
        "the first of them: left out, with weight 0."
    )
    with args.main_process_first():
        dataset = renumber(dataset, rows, args.dataset_num_proc)
    pool.keep(rows)
    return dataset
