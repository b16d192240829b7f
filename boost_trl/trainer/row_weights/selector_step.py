"""The selector's step: the losses of rows, from which weights are learned, and its updates by them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import Dataset

from boost_trl.selection import Selector, TokenBaseline
from boost_trl.trainer.row_weights.config import RowWeightsConfig
from boost_trl.trainer.row_weights.example_ids import ExampleIdCollator
from boost_trl.trainer.row_weights.forward import EvaluationForward
from boost_trl.trainer.row_weights.losses import RowLossAccumulator
from boost_trl.trainer.row_weights.optimizer_batch import NO_ANSWER, MicroBatch, take_numbered_micro_batch
from boost_trl.trainer.row_weights.pool import Pool, StreamedPool


_BASELINE = "token_baseline."


class SelectorStep:
    """Collects the losses C_b of the rows of an optimizer batch and updates the selector by them.

    Args:
        selector ([`~boost_trl.selection.Selector`]): ω.
        pool ([`~boost_trl.trainer.row_weights.pool.Pool`] or [`~boost_trl.trainer.row_weights.pool.StreamedPool`]): names rows.
        args ([`RowWeightsConfig`]): which losses, and when.
        accelerator ([`~accelerate.Accelerator`]): gathers them.
        forward ([`~boost_trl.trainer.row_weights.forward.EvaluationForward`]): computes those that the training forward does not.
        vocab_size (`int`): tokens of the baseline.
    """

    def __init__(
        self,
        selector: Selector,
        pool: Pool | StreamedPool,
        args: RowWeightsConfig,
        accelerator: Accelerator,
        forward: EvaluationForward,
        vocab_size: int,
    ):
        self.selector, self.pool, self.args = selector, pool, args
        self.accelerator, self.forward = accelerator, forward
        has_baseline = args.selector_baseline == "token" and not selector.is_fixed
        self.token_baseline = TokenBaseline(vocab_size) if has_baseline else None
        shares_weights = isinstance(pool, StreamedPool) and not pool.has_unique_ids
        self.row_losses = RowLossAccumulator(
            accelerator, self.token_baseline, args.selection_loss, repeat=not shares_weights
        )

    @property
    def sees_losses_of_training(self) -> bool:
        """True if the losses are those of the training forward, or need one of their own."""
        if self.selector.is_fixed or self.selector.updates_before_weights:
            return False
        return self.args.selector_loss_at == "current"

    def count_rows(self, micro_batches: list[MicroBatch]) -> None:
        """Count how often each row was drawn, where it lies in one sequence."""
        if self.selector.is_fixed:
            return
        if not self.args.packing or self.args.packing_strategy == "bfd":
            for micro_batch in micro_batches:
                self.row_losses.add_rows(micro_batch.row_numbers())

    @torch.no_grad()
    def observe(
        self, micro_batch: MicroBatch, fused, inputs: dict[str, Any], into: RowLossAccumulator | None = None
    ) -> None:
        """Take in the losses of one micro-batch from the fused outputs of its forward on `inputs`."""
        kept = micro_batch.counted(fused.label_mask)
        ids, tokens = (micro_batch.of_predictions(values, kept) for values in (micro_batch.ids, inputs["labels"]))
        shares = is_offline = None
        if micro_batch.answers is not None:
            shares = micro_batch.of_predictions(micro_batch.selector_shares, kept)
            is_offline = micro_batch.of_predictions(micro_batch.answers, kept) == NO_ANSWER
        into = self.row_losses if into is None else into
        into.add(ids, -fused.log_probs[kept], tokens, shares, is_offline)

    def update(self, gamma: float, step: int) -> None:
        """By what was observed since the last update, at γ and after `step` optimizer steps."""
        rows, losses = self.row_losses.collect(check=self.check(step))
        self.selector.update(rows, losses, gamma if math.isfinite(gamma) else 0.0)

    def update_by_extra_forward(self, batches: list[dict[str, Any]], gamma: float, step: int) -> None:
        """By the losses of an optimizer batch under the present model."""
        for batch in batches:
            self._forward(batch, self.row_losses)
        self.update(gamma, step)

    def check_rows(self, batches: list[dict[str, Any]], step: int) -> None:
        """Raises:
        ValueError: naming a row whose loss under the present model is not finite.
        """
        for batch in batches:
            self._forward(batch, self.row_losses)
        self.row_losses.collect(learn_baseline=False, check=self.check(step))

    def refresh(self, dataset: Dataset, collator: ExampleIdCollator, batch_size: int, step: int) -> None:
        """Equation (27): by the losses of all rows under the present model."""
        self.selector.refresh(*self.losses_of(dataset, collator, batch_size, self.check(step)))

    def losses_of(
        self,
        dataset: Dataset,
        collator: ExampleIdCollator,
        batch_size: int,
        check: Callable[[np.ndarray, np.ndarray], None] | None = None,
        advance: Callable[[], object] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers and losses C_b of prepared rows under the present model, the same on every process. `advance` is called
        after every batch."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        row_losses = RowLossAccumulator(self.accelerator, self.token_baseline, self.args.selection_loss)
        # Every process runs as many forwards as the others, on the last batch again where none is left for it.
        for start in range(0, len(dataset), batch_size * world):
            first = start + rank * batch_size
            rows = range(first, min(first + batch_size, len(dataset))) or range(len(dataset) - 1, len(dataset))
            self._forward(collator(dataset.__getitems__([*rows])), row_losses, is_counted=first < len(dataset))
            advance()
        return row_losses.collect(learn_baseline=False, check=check)

    def _forward(self, batch: dict[str, Any], into: RowLossAccumulator, is_counted: bool = True) -> None:
        inputs = dict(batch)
        micro_batch = take_numbered_micro_batch(inputs)
        if not is_counted:
            micro_batch.is_counted = torch.zeros_like(micro_batch.ids, dtype=torch.bool)
        self.observe(micro_batch, self._fused(inputs), inputs, into)

    def _fused(self, inputs: dict[str, Any]):
        """Fused outputs of an evaluation forward."""
        return self.forward(**inputs)

    def check(self, step: int) -> Callable[[np.ndarray, np.ndarray], None]:
        def check(rows: np.ndarray, losses: np.ndarray) -> None:
            bad = np.flatnonzero(~np.isfinite(losses))
            if bad.size:
                raise ValueError(
                    f"the loss of {self.pool.name_of(int(rows[bad[0]]))} is {losses[bad[0]]} at step {step + 1} "
                    f"({bad.size} of {len(rows)} rows have none that is finite); no weight can be learned from it: look for "
                    "a learning rate that is too high, or for this row's text"
                )

        return check

    def state(self) -> dict[str, torch.Tensor]:
        """State for an exact continuation beside the selector's own state."""
        if self.token_baseline is None:
            return {}
        return {f"{_BASELINE}{name}": value for name, value in self.token_baseline.state_dict().items()}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Continue where `state` left off, between two optimizer batches."""
        self.row_losses.reset()
        if self.token_baseline is not None:
            own = {name: value for name, value in state.items() if name.startswith(_BASELINE)}
            self.token_baseline.load_state_dict({name.removeprefix(_BASELINE): value for name, value in own.items()})
