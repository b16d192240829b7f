"""Row numbers that survive TRL's data preparation, packing and collation, so that a token's loss finds its row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset, List, Value
from torch.utils.data import DataLoader


EXAMPLE_ID = "_example_id"
ROW_IN_BATCH = "_row_in_batch"
NO_EXAMPLE = -1  # padding


def with_ids(dataset: Dataset) -> Dataset:
    """The rows with their numbers, from 0, in a column of their own, in the format that they have; as they are where a
    transform makes them, which decides by itself what they hold."""
    if dataset.format["type"] == "custom":
        return dataset
    if EXAMPLE_ID in dataset.column_names:  # a dataset that another trainer has prepared
        dataset = dataset.remove_columns(EXAMPLE_ID)
    shown = dataset.format
    dataset = dataset.add_column(EXAMPLE_ID, np.arange(len(dataset), dtype=np.int32))
    if shown["type"] is not None:
        columns = [*shown["columns"], EXAMPLE_ID]
        dataset = dataset.with_format(shown["type"], columns=columns, **shown["format_kwargs"])
    return dataset


def take_ids(dataset: Dataset) -> tuple[Dataset, np.ndarray | None]:
    """The rows without their numbers, and (N,) these; `None` if they have none."""
    if EXAMPLE_ID not in dataset.column_names:
        return dataset, None
    ids = np.asarray(dataset.with_format("numpy", columns=[EXAMPLE_ID])[:][EXAMPLE_ID])
    return dataset.remove_columns(EXAMPLE_ID), ids


def hide_ids_in_labels(dataset: Dataset | IterableDataset, **map_kwargs) -> Dataset | IterableDataset:
    """Put the row number into the upper 32 bits of each label.

    TRL packs `input_ids` and `labels` and drops every other column. This way the numbers travel through its own packing
    and shuffling, whatever they are. [`take_ids_from_labels`] undoes it.
    """
    if isinstance(dataset, Dataset):
        dataset = dataset.cast_column("labels", List(Value("int64")))
    return dataset.map(_hide, batched=True, **map_kwargs)


def take_ids_from_labels(dataset: Dataset | IterableDataset, **map_kwargs) -> Dataset | IterableDataset:
    """Split packed labels into labels and a column of row numbers, one per token."""
    return dataset.map(_take, batched=True, **map_kwargs)


def _hide(batch: dict[str, list]) -> dict[str, list]:
    labels = [
        (np.int64(example_id) << 32) | (np.asarray(row, dtype=np.int64) & 0xFFFFFFFF)
        for example_id, row in zip(batch[EXAMPLE_ID], batch["labels"])
    ]
    return {"labels": labels}


def _take(batch: dict[str, list]) -> dict[str, list]:
    codes = [np.asarray(row, dtype=np.int64) for row in batch["labels"]]
    return {
        "labels": [code.astype(np.int32).astype(np.int64) for code in codes],  # the lower 32 bits, with their sign
        EXAMPLE_ID: [code >> 32 for code in codes],
    }


def rows_per_pass(dataloader: DataLoader) -> int:
    """Number of rows that the sampler of a prepared loader draws in one pass, before any that fill the last batch."""
    batch_sampler = dataloader.batch_sampler
    while hasattr(batch_sampler, "batch_sampler"):
        batch_sampler = batch_sampler.batch_sampler
    sampler = getattr(batch_sampler, "sampler", dataloader.dataset)
    return len(sampler)


@dataclass
class ExampleIdCollator:
    """Collates as `collator` does and adds the row numbers as a tensor under `"_example_id"`.

    The tensor is int64 of shape (batch, 1) for batches of one example per row, else (batch, sequence) or, flattened,
    (1, tokens), with -1 on padding. Flattened batches also get `"_row_in_batch"` of the same shape.

    Args:
        collator (`Callable`): The trainer's own collator. It never sees the row numbers.
        padding_free (`bool`): Whether it concatenates the examples of a batch into one sequence.
        sequences_per_row (`int`, *optional*, defaults to `1`): Sequences that it makes of an example.

    Raises:
        ValueError: if `collator` returns another number of rows than it was given.
    """

    collator: Callable[[list[dict[str, Any]]], dict[str, Any]]
    padding_free: bool
    sequences_per_row: int = 1

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        ids = [torch.as_tensor(feature[EXAMPLE_ID], dtype=torch.int64) for feature in features]
        batch = self.collator([{k: v for k, v in feature.items() if k != EXAMPLE_ID} for feature in features])
        rows, length = batch["input_ids"].shape
        if self.padding_free:
            lengths = torch.tensor([len(feature["input_ids"]) for feature in features])
            flat = [row.expand(n) for row, n in zip(ids, lengths.tolist())]
            batch[EXAMPLE_ID] = _pad([torch.cat(flat)], length)
            batch[ROW_IN_BATCH] = _pad([torch.repeat_interleave(torch.arange(len(features)), lengths)], length)
            return batch
        if rows != len(features) * self.sequences_per_row:
            raise ValueError(
                f"the data collator returned {rows} rows for {len(features)} examples; example weights need one row per "
                "example: use a collator that keeps rows apart, or `packing=True` instead of packing in the collator"
            )
        batch[EXAMPLE_ID] = torch.stack(ids)[:, None] if ids[0].dim() == 0 else _pad(ids, length)
        return batch


def _pad(rows: list[torch.Tensor], length: int) -> torch.Tensor:
    padded = torch.full((len(rows), length), NO_EXAMPLE, dtype=torch.int64)
    for target, row in zip(padded, rows):
        target[: len(row)] = row
    return padded


def ids_of_predictions(example_ids: torch.Tensor, width: int) -> torch.Tensor:
    """The row number that each log-probability of the fused forward belongs to.

    Args:
        example_ids (`torch.Tensor`): (B, 1), or (B, S) per input token.
        width (`int`): columns of the log-probabilities: S − 1, or more where prompt-learning adapters add virtual
            tokens in front.

    Returns:
        `torch.Tensor`: (B, width).
    """
    if example_ids.size(1) <= width:
        first = example_ids[:, :1].expand(-1, width - example_ids.size(1))
        return torch.cat([first, example_ids], dim=1)
    return example_ids[:, -width:]
