"""Batches that hold the numbers of their rows."""

from datasets import Dataset, IterableDataset
from transformers import Trainer

from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID, ExampleIdCollator
from boost_trl.trainer.row_weights.pool import Pool, StreamedPool


class NumberedRows(Trainer):
    """Part of a TRL trainer that takes the numbers of the training rows into its batches. The trainer sets `pool` before it calls
    `__init__`; with `None` nothing is numbered, and it is TRL's.
    """

    pool: Pool | StreamedPool | None = None
    train_dataset: Dataset | IterableDataset
    _sequences_per_row = 1

    def _name_of_row(self, dataset: Dataset, name: str, place: int) -> str:
        """Name in messages of the row at a place of a dataset that TRL calls `name`."""
        number = dataset[place].get(EXAMPLE_ID)
        if number is None:
            known = {"train": "train_dataset", "eval": "eval_dataset"}
            return f"`{known.get(name, f'eval_dataset[{name!r}]')}`, row {place}"
        if name == "train" and isinstance(self.pool, Pool):
            return f"`train_dataset`, row {self.pool.original_row(number)}"
        return f"`validation_dataset`, row {number}"

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        if self.pool is not None and EXAMPLE_ID not in self._signature_columns:
            self._signature_columns.append(EXAMPLE_ID)

    def get_train_dataloader(self):
        if self.pool is None:
            return super().get_train_dataloader()
        # Swapped for this one loader, so that `data_collator` stays what TRL and the user know.
        collator = self.data_collator
        self.data_collator = self.collator_with_ids()
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def collator_with_ids(self) -> ExampleIdCollator:
        """`data_collator` for rows with numbers."""
        return ExampleIdCollator(self.data_collator, self.padding_free, self._sequences_per_row)
