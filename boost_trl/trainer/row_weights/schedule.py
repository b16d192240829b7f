"""Length of training, and with it ρ and γ at every step."""

import math
from dataclasses import dataclass

from torch.utils.data import DataLoader
from transformers import TrainerState
from transformers.trainer_utils import has_length

from boost_trl.selection import PenaltySchedule
from boost_trl.trainer.row_weights.config import RowWeightsConfig


@dataclass
class Schedule:
    """Args:
    penalty ([`~boost_trl.selection.PenaltySchedule`]): ρ and γ by epoch.
    steps_per_epoch (`float`, *optional*): optimizer steps of one pass; `None` for a stream that does not say how many
        rows it has.
    is_stream (`bool`): whether the loader has no length.
    num_epochs (`float`): passes of the whole training.
    """

    penalty: PenaltySchedule
    steps_per_epoch: float | None
    is_stream: bool
    num_epochs: float

    def epoch(self, state: TrainerState) -> float:
        """Passes over the training data so far."""
        if self.is_stream and self.steps_per_epoch is not None:
            return state.global_step / self.steps_per_epoch  # Trainer's `epoch` of a stream is the share of all steps
        return state.epoch or 0.0


def make_schedule(
    args: RowWeightsConfig, dataloader: DataLoader, max_steps: int, accumulation_steps: int, rows_per_batch: int
) -> Schedule:
    """Args:
    dataloader ([`~torch.utils.data.DataLoader`]): the training loader.
    max_steps (`int`): optimizer steps of the whole training.
    accumulation_steps (`int`): micro-batches per optimizer step.
    rows_per_batch (`int`): rows of one micro-batch, over all processes.
    """
    steps = None
    if has_length(dataloader):
        steps = math.ceil(len(dataloader) / accumulation_steps)
    elif args.num_examples is not None:
        # Trainer never drops the last batch of a stream, and makes no step of the micro-batches that are left over.
        steps = max(1, math.ceil(args.num_examples / rows_per_batch) // accumulation_steps)
    # A stream of unknown length does not tell where a pass ends, so ρ stays where it starts.
    num_epochs = 1 if steps is None else max_steps / steps
    return Schedule(args.penalty_schedule(num_epochs), steps, not has_length(dataloader), num_epochs)
