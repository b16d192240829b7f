"""The planned optimizer batch: what each token of its micro-batches counts, its validation rows, and the sums of its losses."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from boost_trl.selection import Selector
from boost_trl.trainer.row_weights.example_ids import (
    EXAMPLE_ID,
    NO_EXAMPLE,
    ROW_IN_BATCH,
    ids_of_predictions,
)
from boost_trl.trainer.row_weights.pool import Pool, StreamedPool
from boost_trl.trainer.row_weights.schedule import Schedule


MICRO_BATCH = "_micro_batch"  # the one key of a micro-batch that is not the model's, from its planning to its loss
NO_ANSWER = -1  # a token of an offline answer, or padding


@dataclass
class MicroBatch:
    """A micro-batch beside the model's inputs: all that is known and planned of it. A tensor is (B, 1), one value per row, or has the shape of
    `input_ids`; a prediction is its own label's.

    Args:
        ids (`torch.Tensor`): row numbers, -1 on padding.
        rows (`torch.Tensor`): which row of the micro-batch, -1 on padding of flattened ones.
        is_counted (`torch.Tensor`, *optional*): false for rows that only fill the last batch of a pass.
        answers (`torch.Tensor`, *optional*): number of the model's own answer, -1 for offline answers.
        shares (`torch.Tensor`, *optional*): what part of its row a token's answer is; `None`: all of it.
        selector_shares (`torch.Tensor`, *optional*): what a token's loss counts in the loss of its row that the selector
            sees; `None`: 1.
        weights (`torch.Tensor`, *optional*): float32, what a token's loss is multiplied by.
        validation (`dict`, *optional*): the validation batch that goes with it.
    """

    ids: torch.Tensor
    rows: torch.Tensor
    is_counted: torch.Tensor | None = None
    answers: torch.Tensor | None = None
    shares: torch.Tensor | None = None
    selector_shares: torch.Tensor | None = None
    weights: torch.Tensor | None = None
    validation: dict[str, Any] | None = None

    def of_predictions(self, values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """(T,) of `values` of the fused forward's predictions where `kept`, (B, width), holds."""
        return ids_of_predictions(values.to(kept.device), kept.size(1))[kept]

    def counted(self, label_mask: torch.Tensor) -> torch.Tensor:
        """(B, width): the predictions of which the selector learns."""
        if self.is_counted is None:
            return label_mask
        return label_mask & ids_of_predictions(self.is_counted.to(label_mask.device), label_mask.size(1))

    def row_numbers(self) -> torch.Tensor:
        """The number of each row that the selector counts; packed sequences hold several."""
        is_counted = torch.ones_like(self.ids, dtype=torch.bool) if self.is_counted is None else self.is_counted
        rows, ids, is_counted = torch.broadcast_tensors(self.rows, self.ids, is_counted)
        ids = ids.masked_fill(~is_counted, NO_EXAMPLE)
        numbers = torch.unique(torch.stack([rows, ids], dim=-1).flatten(0, -2), dim=0)[:, 1]
        return numbers[numbers != NO_EXAMPLE]

    def unpacked_rows(self) -> tuple[list[int], list[bool]]:
        """The number of each row, one per sequence or part of a flattened one, and whether the selector counts it."""
        is_counted = torch.ones_like(self.ids, dtype=torch.bool) if self.is_counted is None else self.is_counted
        columns = torch.broadcast_tensors(self.rows, self.ids, is_counted)
        rows, ids, is_counted = (column.flatten().cpu().numpy() for column in columns)
        known = ids != NO_EXAMPLE
        _, first = np.unique(rows[known], return_index=True)
        return ids[known][first].tolist(), is_counted[known][first].tolist()


def take_micro_batch(inputs: dict[str, Any]) -> MicroBatch | None:
    """The part of a micro-batch that is not the model's, taken out of it; `None` if its rows have no numbers, as those of evaluation."""
    planned = inputs.pop(MICRO_BATCH, None)
    ids, rows = inputs.pop(EXAMPLE_ID, None), inputs.pop(ROW_IN_BATCH, None)
    if planned is not None or ids is None:
        return planned
    return MicroBatch(ids, torch.arange(ids.size(0), device=ids.device)[:, None] if rows is None else rows)


def take_numbered_micro_batch(inputs: dict[str, Any]) -> MicroBatch:
    """The same, of rows that have numbers."""
    micro_batch = take_micro_batch(inputs)
    assert micro_batch is not None, "rows without numbers"
    return micro_batch


def row_weights(ids: torch.Tensor, pool: Pool | StreamedPool, selector: Selector | None) -> torch.Tensor:
    """Factors of the losses of rows: fixed times learned weights, float32 in the shape of `ids`, 0 on padding."""
    numbers, place = torch.unique(ids, return_inverse=True)
    is_row = numbers != NO_EXAMPLE
    weights = torch.zeros(len(numbers), device=ids.device)
    known = torch.ones(int(is_row.sum()), device=ids.device)
    fixed = pool.fixed_weights(numbers[is_row])
    if fixed is not None:
        known = known * fixed
    if selector is not None and selector.is_learned:
        known = known * selector.weights(numbers[is_row])
    weights[is_row] = known
    return weights[place]


@dataclass
class OptimizerBatch:
    """The micro-batches of one optimizer step with the coefficients of equation (22) and the sums of losses for the logs.

    Args:
        batches (`list[dict]`): this process's micro-batches, each with its [`MicroBatch`].
        rho (`float`): ρ of the current epoch.
        gamma (`float`): γ = ρ/(1−ρ), infinite for ρ = 1.
        pool_coefficient (`float`): what the weighted pool loss is multiplied by.
        validation_coefficient (`float`): what the validation loss is multiplied by.
    """

    batches: list[dict[str, Any]]
    rho: float
    gamma: float
    pool_coefficient: float
    validation_coefficient: float
    validation_items: torch.Tensor | int | None = None
    # pool loss, weighted pool loss, pool tokens, validation loss, validation items, what the model minimises
    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(6, dtype=torch.float64))

    @classmethod
    def at(cls, epoch: float, schedule: Schedule, batches: list[dict[str, Any]]) -> "OptimizerBatch":
        """With the coefficients of an epoch."""
        validation_coefficient, pool_coefficient = schedule.penalty.coefficients(epoch)
        rho, gamma = schedule.penalty.rho(epoch), schedule.penalty.gamma(epoch)
        return cls(batches, rho, gamma, pool_coefficient, validation_coefficient)

    def add_pool(self, losses: torch.Tensor, weights: torch.Tensor, shares: torch.Tensor | None = None) -> None:
        """Token losses of the pool, (T,), what they are multiplied by, (T,), and what part of its row each is, (T,)."""
        losses, weights = losses.cpu().double(), weights.cpu().double()  # MPS has no float64
        shares = torch.ones_like(losses) if shares is None else shares.cpu().double()
        self.sums[:3] += torch.stack([(shares * losses).sum(), (weights * losses).sum(), shares.sum()])

    def add_validation(self, loss: torch.Tensor, count: torch.Tensor | int) -> None:
        """A summed validation loss and the number of its terms."""
        self.sums[3:5] += torch.tensor([float(loss), float(count)], dtype=torch.float64)

    def add_objective(self, loss: torch.Tensor) -> None:
        """The loss of one micro-batch as it goes backward."""
        self.sums[5] += float(loss)

    def totals(self, accelerator: Accelerator) -> tuple[dict[str, float], float]:
        """Losses of all processes as they are logged, and the objective that the model minimises.

        Returns:
            `tuple[dict[str, float], float]`: `lower_loss`, `weighted_lower_loss`, `upper_loss`, `rho` and, where it is
            finite, `gamma`; the objective.
        """
        sums = self.sums
        if accelerator.num_processes > 1:
            sums = accelerator.reduce(sums.to(accelerator.device), "sum").cpu()
        pool, weighted, tokens, validation, validation_items, objective = sums.tolist()
        metrics = {
            "lower_loss": pool / max(tokens, 1),
            "weighted_lower_loss": weighted / max(tokens, 1),
            "upper_loss": validation / max(validation_items, 1),
            "rho": self.rho,
        }
        if math.isfinite(self.gamma):
            metrics["gamma"] = self.gamma
        return metrics, objective


def mark_filling_rows(last: MicroBatch, accelerator: Accelerator, batch_size: int, rows_per_pass: int) -> None:
    """Rows that the sampler repeats to fill the last batch of a pass must not count twice in the selector.

    Args:
        last ([`MicroBatch`]): the last one of a pass.
        batch_size (`int`): rows per process, or of all with `split_batches`.
        rows_per_pass (`int`): rows that the sampler draws.
    """
    processes = accelerator.num_processes
    if accelerator.split_batches:
        batch_size //= processes
    remainder = rows_per_pass % (batch_size * processes)
    if remainder:
        last.is_counted = accelerator.process_index * batch_size + last.rows < remainder


def mark_repeated_rows(micro_batches: list[MicroBatch], accelerator: Accelerator, pool: StreamedPool) -> None:
    """The same for a stream with row numbers, which alone tell what was met before."""
    ids = torch.cat([micro_batch.row_numbers() for micro_batch in micro_batches]).to(accelerator.device)
    if accelerator.num_processes > 1:
        ids = accelerator.gather(accelerator.pad_across_processes(ids, pad_index=NO_EXAMPLE))
    ids = ids[ids != NO_EXAMPLE].cpu().numpy()
    repeated = torch.from_numpy(pool.repeated(ids, accelerator.num_processes))
    for micro_batch in micro_batches:
        micro_batch.is_counted = ~torch.isin(micro_batch.ids, repeated.to(micro_batch.ids.device))
