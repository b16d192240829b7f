"""One optimizer batch of the bilevel objective, and the moments of training at which it begins and ends."""

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback


if TYPE_CHECKING:
    from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


class Window:
    """The micro-batches of one optimizer step with the coefficients of equation (22) and the sums of losses for the logs.

    Args:
        batches (`list[dict]`): this process's micro-batches.
        rho (`float`): ρ of the current epoch.
        gamma (`float`): γ = ρ/(1−ρ), infinite for ρ = 1.
        pool_coefficient (`float`): what the weighted pool loss is multiplied by.
        validation_coefficient (`float`): what the validation loss is multiplied by.
    """

    def __init__(
        self,
        batches: list[dict[str, Any]],
        rho: float,
        gamma: float,
        pool_coefficient: float,
        validation_coefficient: float,
    ):
        self.batches = batches
        self.rho = rho
        self.gamma = gamma
        self.pool_coefficient = pool_coefficient
        self.validation_coefficient = validation_coefficient
        self.validation_items: torch.Tensor | int | None = None
        # pool loss, weighted pool loss, pool tokens, validation loss, validation items, what the model minimises
        self.sums = torch.zeros(6, dtype=torch.float64)

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


class BilevelCallback(TrainerCallback):
    """Tells the trainer when training, epochs and optimizer steps begin and end."""

    def __init__(self, trainer: "BilevelSFTSelfRefineTrainer"):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        self.trainer._begin_training(train_dataloader)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer._begin_epoch()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.trainer._end_window()

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer._after_step()

    def on_train_end(self, args, state, control, **kwargs):
        self.trainer._end_training()

    def on_epoch_end(self, args, state, control, **kwargs):
        self.trainer._end_epoch()
