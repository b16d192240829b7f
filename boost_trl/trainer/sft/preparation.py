"""TRL's preparation of rows that carry their numbers."""

import copy
from collections.abc import Callable

from datasets import Dataset, IterableDataset
from trl import SFTConfig, SFTTrainer

from boost_trl.trainer.row_weights.example_ids import (
    EXAMPLE_ID,
    hide_ids_in_labels,
    take_ids,
    take_ids_from_labels,
)
from boost_trl.trainer.row_weights.failed_preparation import prepare_or_name_row
from boost_trl.trainer.row_weights.numbered_rows import NumberedRows
from boost_trl.trainer.row_weights.pool import column_names
from boost_trl.trainer.row_weights.row_checks import columns_to_read
from boost_trl.trainer.row_weights.validation import learns_completions_only


class NumberedRowsTrainer(NumberedRows, SFTTrainer):
    """[`~trl.SFTTrainer`] whose batches hold the numbers of their rows, wherever its preparation, packing and collation take
    them.
    """

    completion_only_loss: bool | None

    def _prepare_dataset(self, dataset, processing_class, args, packing, formatting_func, dataset_name):
        prepare = super()._prepare_dataset

        def prepare_text_once(dataset, args, packing):
            format_text = None if packing else formatting_func
            return prepare(dataset, processing_class, args, packing, format_text, dataset_name)

        def prepare_text(dataset):
            return prepare(dataset, processing_class, args, packing, formatting_func, dataset_name)

        def prepare_rows(dataset):
            if packing and EXAMPLE_ID in column_names(dataset):
                return packed_with_ids(prepare_text_once, dataset, args)
            prepared = numbered_afterwards(prepare_text, dataset, args)
            return prepare_text(dataset) if prepared is None else prepared

        def name_of(place):
            is_text = formatting_func is None and "input_ids" not in dataset.column_names
            columns = columns_to_read(dataset, dataset_name, args.dataset_text_field) if is_text else []
            return ", ".join([self._name_of_row(dataset, dataset_name, place), *map("column '{}'".format, columns)])

        return prepare_or_name_row(prepare_rows, dataset, name_of)

    def prepare_like_evaluation(self, dataset: Dataset, name: str) -> Dataset:
        """`dataset` with TRL's own preparation, never packed, with the columns that the collator reads.

        Unless the arguments say so, its own columns and not the training data's decide whether prompts are learned.
        """
        if not self._skip_prepare_dataset:
            of_training = self.completion_only_loss
            self.completion_only_loss = learns_completions_only(dataset, self.args)
            try:
                dataset = self._prepare_dataset(
                    dataset, self.processing_class, self.args, False, self._formatting_func, name
                )
            finally:
                self.completion_only_loss = of_training
        return self._remove_unused_columns(dataset, description=name)


def numbered_afterwards(
    prepare: Callable[[Dataset], Dataset], dataset: Dataset | IterableDataset, args: SFTConfig
) -> Dataset | None:
    """`dataset` as `prepare` gives it without row numbers, which would cost time in each of TRL's passes, and with them then; `None`
    where rows may be left out or shuffled, and numbers have to travel along."""
    masks = {"prompt", "labels", "completion_mask", "assistant_masks"}
    if not isinstance(dataset, Dataset) or args.assistant_only_loss or args.shuffle_dataset:
        return None
    if dataset.format["type"] is not None:
        return None
    if EXAMPLE_ID not in dataset.column_names or not masks.isdisjoint(dataset.column_names):
        return None
    rows, ids = take_ids(dataset)
    prepared = prepare(rows)
    if len(prepared) != len(prepared.data):  # empty rows
        return None
    # TRL's filter has kept all rows: without its list of them, which `add_column` would copy them all for.
    prepared = Dataset(prepared.data, info=prepared.info, split=prepared.split)
    with args.main_process_first():
        return prepared.add_column(EXAMPLE_ID, ids)


def packed_with_ids(prepare: Callable[..., Dataset | IterableDataset], dataset, args: SFTConfig):
    """`dataset` as `prepare` packs it, with a column of row numbers, one per token.

    Everything up to packing comes first: packing truncates and shuffles by itself.

    Args:
        prepare (`Callable`): `(dataset, args, packing) -> dataset`, TRL's preparation.
        dataset ([`~datasets.Dataset`] or [`~datasets.IterableDataset`]): rows with numbers.
        args ([`~trl.SFTConfig`]): how to prepare.
    """
    unpacked = copy.copy(args)
    unpacked.max_length, unpacked.shuffle_dataset = None, False
    dataset = prepare(dataset, unpacked, False)
    map_kwargs = {"num_proc": args.dataset_num_proc} if isinstance(dataset, Dataset) else {}
    with args.main_process_first():
        dataset = hide_ids_in_labels(dataset, **map_kwargs)
    dataset = prepare(dataset, args, True)
    with args.main_process_first():
        return take_ids_from_labels(dataset, **map_kwargs)
