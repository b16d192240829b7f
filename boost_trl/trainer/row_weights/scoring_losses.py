"""Losses of pool and trusted rows under the present model: those that validated selection asks for, outside of training's loop."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset

from boost_trl.trainer.common.weighted_sampler import WeightedSampler
from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID, NO_EXAMPLE, with_ids
from boost_trl.trainer.row_weights.losses import num_labels, token_losses
from boost_trl.trainer.row_weights.optimizer_batch import take_numbered_micro_batch
from boost_trl.trainer.row_weights.prepared_rows import first_of_equal
from boost_trl.trainer.row_weights.validation import ValidationLoss


def by_length(dataset: Dataset) -> Dataset:
    """Prepared rows of like lengths together, the longest first, so that batches have little padding; as they are where
    tokens are made with each batch."""
    if "input_ids" not in dataset.column_names:
        return dataset
    lengths = pc.list_value_length(dataset.with_format("arrow", columns=["input_ids"])[:]["input_ids"])
    return dataset.select(np.argsort(-lengths.to_numpy(), kind="stable"))


class PoolLosses:
    """Losses of rows of the pool.

    Args:
        dataset ([`~datasets.Dataset`]): prepared rows with their numbers.
        is_packed (`bool`): whether a place of `dataset` holds several rows, which cannot be drawn one by one.
        collator (`Callable`): for rows with numbers.
        mean_losses (`Callable`): `(dataset, advance) -> (row numbers, mean losses)` under the present model, sorted and the
            same on every process.
        forward (`Callable`): `inputs -> outputs` of TRL's fused forward, with gradients.
        loss_type (`str`, *optional*, defaults to `"nll"`): of the tokens.
    """

    def __init__(
        self,
        dataset: Dataset,
        is_packed: bool,
        collator: Callable[[list[dict[str, Any]]], dict[str, Any]],
        mean_losses: Callable[[Dataset, Callable], tuple[np.ndarray, np.ndarray]],
        forward: Callable[[dict[str, Any]], Any],
        loss_type: str = "nll",
    ):
        self.dataset, self.is_packed = dataset, is_packed
        self._collator, self._mean_losses, self._forward, self._loss_type = collator, mean_losses, forward, loss_type

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, most: int, seed: int) -> "PoolLosses":
        """Those of random places, at most `most`."""
        if len(self) <= most:
            return self
        places = np.sort(np.random.default_rng(seed).choice(len(self), most, replace=False))
        parts = (self._collator, self._mean_losses, self._forward, self._loss_type)
        return type(self)(self.dataset.select(places), self.is_packed, *parts)

    def numbers(self) -> np.ndarray:
        """Row numbers, sorted."""
        ids = pa.chunked_array(self.dataset.with_format("arrow", columns=[EXAMPLE_ID])[:][EXAMPLE_ID])
        ids = np.unique(pc.list_flatten(ids) if pa.types.is_nested(ids.type) else ids)
        return ids[ids != NO_EXAMPLE]

    def means(self, advance: Callable[[], object]) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers, sorted, and their mean losses per token; `advance` is called for every batch."""
        return self._mean_losses(by_length(self.dataset), advance)

    def draws(self, numbers: np.ndarray, weights: np.ndarray, seed: int) -> Iterator[int]:
        """Endless places, drawn by the weights of their rows, which are named by `numbers`."""
        by_place = np.ones(len(self))
        if not self.is_packed:
            by_place = weights[np.searchsorted(numbers, self.dataset.with_format("numpy")[:][EXAMPLE_ID])]
        sampler = WeightedSampler(lambda: by_place, len(by_place), seed)
        for epoch in itertools.count():
            sampler.set_epoch(epoch)
            yield from sampler

    def batch(self, places: Sequence[int]) -> dict[str, Any]:
        """The collated rows of these places, for one call of [`loss`]."""
        return self._collator(self.dataset.__getitems__(list(places)))

    def num_terms(self, batch: dict[str, Any]) -> int:
        """Number of the losses that [`loss`] takes the mean of."""
        return num_labels(batch)

    def loss(self, inputs: dict[str, Any], numbers: np.ndarray, weights: np.ndarray) -> torch.Tensor:
        """Mean loss of a batch's tokens, those of packed rows times their weights over the mean weight. It takes the row numbers
        out of the batch."""
        micro_batch = take_numbered_micro_batch(inputs)
        outputs = self._forward(inputs)
        kept = outputs.label_mask
        losses = token_losses(outputs.log_probs[kept], self._loss_type)
        if not self.is_packed:
            return losses.mean()
        ids = micro_batch.of_predictions(micro_batch.ids, kept)
        factors = torch.from_numpy(weights * len(weights))[np.searchsorted(numbers, ids.cpu().numpy())]
        return (factors.to(losses) * losses).mean()


class TrustedLosses:
    """Losses of trusted rows, named by their places in the prepared validation set.

    Args:
        validation ([`~boost_trl.trainer.row_weights.validation.ValidationLoss`]): of the training.
        loss_sum (`Callable`): `batch -> (summed loss, number of its terms)`, with gradients.
        mean_losses (`Callable`, *optional*): as of [`PoolLosses`]; `None` where the loss is not that of the pool's rows.
    """

    def __init__(
        self,
        validation: ValidationLoss,
        loss_sum: Callable[[dict[str, Any]], tuple[torch.Tensor, torch.Tensor | int]],
        mean_losses: Callable[[Dataset, Callable], tuple[np.ndarray, np.ndarray]] | None,
    ):
        self._validation, self._loss_sum, self._mean_losses = validation, loss_sum, mean_losses

    def __len__(self) -> int:
        return len(self._validation.dataset)

    def equal_rows(self) -> np.ndarray:
        """For each row the place of the first that has the same tokens, (len(self),)."""
        return first_of_equal(self._validation.dataset)

    @cached_property
    def _numbered(self) -> Dataset:
        return with_ids(self._validation.dataset)

    @property
    def batch_size(self) -> int:
        return self._validation.batch_size

    def batch(self, rows: Sequence[int]) -> dict[str, Any]:
        """These rows, collated."""
        return self._validation.batch(list(rows))

    def num_terms(self, batch: dict[str, Any]) -> int:
        """Number of the losses that [`loss`] takes the mean of."""
        return self._validation.num_terms(batch)

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        """Mean loss of a batch."""
        total, count = self._loss_sum(batch)
        return total / torch.as_tensor(count).clamp(min=1)

    @torch.no_grad()
    def mean(self, rows: np.ndarray) -> float:
        """Mean loss of the terms of many rows."""
        total, count = 0.0, 0
        for start in range(0, len(rows), self.batch_size):
            part = self._loss_sum(self.batch(rows[start : start + self.batch_size].tolist()))
            total, count = total + float(part[0]), count + int(part[1])
        return total / max(1, count)

    def means(self, rows: np.ndarray) -> np.ndarray | None:
        """Mean loss per token of each row, (len(rows),), where pool and trusted rows have the same loss."""
        if self._mean_losses is None:
            return None
        # Numbered once, before the choice: a column that is added to chosen rows has them all written anew, under a bar.
        _, means = self._mean_losses(self._numbered.select(rows), lambda: None)
        return means[np.unique(rows, return_inverse=True)[1]]
