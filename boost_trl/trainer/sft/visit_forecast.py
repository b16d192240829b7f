"""Forecast of the rows that the next optimizer steps will read."""

import copy
import math

import numpy as np
import torch
from accelerate.data_loader import DataLoaderShard, SeedableRandomSampler
from torch.utils.data import DataLoader, Sampler, SequentialSampler


class VisitForecast:
    """Places of the dataset that the next optimizer steps will read.

    Args:
        dataloader ([`~torch.utils.data.DataLoader`]): the prepared training loader.
        num_processes (`int`): over which its batches are dealt out in turn.
        batch_size (`int`): rows per process and micro-batch.
        accumulation_steps (`int`): micro-batches per optimizer step.
    """

    def __init__(self, dataloader: DataLoader, num_processes: int, batch_size: int, accumulation_steps: int):
        self.steps_per_epoch = math.ceil(len(dataloader) / accumulation_steps)
        self.rows_per_step = batch_size * num_processes * accumulation_steps
        self.rows_per_epoch = len(dataloader) * batch_size * num_processes
        self.fills_last_batch = num_processes > 1
        batch_sampler = dataloader.batch_sampler
        is_known = isinstance(dataloader, DataLoaderShard)
        while hasattr(batch_sampler, "batch_sampler"):
            is_known = is_known and not batch_sampler.split_batches
            batch_sampler = batch_sampler.batch_sampler
        sampler = batch_sampler.sampler
        is_known = is_known and isinstance(sampler, (SeedableRandomSampler, SequentialSampler))
        self.sampler = sampler if is_known else None

    def places(self, first_step: int, last_step: int) -> np.ndarray | None:
        """Places read in steps `first_step` ≤ k < `last_step`, sorted; `None` if all may be, or it cannot be foreseen."""
        if self.sampler is None or last_step - first_step >= 2 * self.steps_per_epoch:
            return None
        pieces = [np.zeros(0, np.int64)]
        while first_step < last_step:
            epoch, step = divmod(first_step, self.steps_per_epoch)
            count = min(last_step - first_step, self.steps_per_epoch - step)
            pieces.append(
                self._order(self.sampler, epoch)[step * self.rows_per_step : (step + count) * self.rows_per_step]
            )
            first_step += count
        return np.unique(np.concatenate(pieces))

    def _order(self, sampler: Sampler, epoch: int) -> np.ndarray:
        sampler = copy.copy(sampler)
        if isinstance(sampler, SeedableRandomSampler):
            sampler.generator = torch.Generator()
            sampler.set_epoch(epoch)
        order = np.fromiter(sampler, np.int64)
        if self.fills_last_batch:  # with the first rows of the epoch
            return np.resize(order, self.rows_per_epoch)
        return order[: self.rows_per_epoch]
