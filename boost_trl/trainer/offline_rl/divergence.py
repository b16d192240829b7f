"""Stopping when training has diverged, with the step and the cause."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object
from torch.nn.utils import get_total_norm

from boost_trl.models.sharded_tensor import own_piece


class UpdateLosses:
    """The losses of all rows of one optimizer batch. They stay on the device until `take`, which asks it once.

    Args:
        accelerator (`Accelerator`): whose processes share the batch.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self._pieces: list[tuple[np.ndarray, torch.Tensor]] = []

    def add(self, rows: np.ndarray, losses: torch.Tensor) -> None:
        """Rows of a micro-batch and their losses, both (B,)."""
        self._pieces.append((rows, losses.detach()))

    def clear(self) -> None:
        """Forget what was added."""
        self._pieces.clear()

    def take(self) -> list[tuple[int, float]] | None:
        """Forget what was added, on all processes together. `None` if all of it is finite, else the losses of all processes'
        rows."""
        total = torch.stack([losses.sum() for _, losses in self._pieces]).sum()
        if self.accelerator.num_processes > 1:
            total = self.accelerator.reduce(total)
        losses = None
        if not total.isfinite().item():
            losses = [pair for rows, losses in self._pieces for pair in zip(rows.tolist(), losses.tolist())]
            if self.accelerator.num_processes > 1:
                losses = gather_object(losses)
        self.clear()
        return losses


def explain_losses(
    moment: str,
    losses: list[tuple[int, float]],
    name_of_row: Callable[[int], str],
    parameters: Iterable[tuple[str, torch.Tensor]],
) -> ValueError:
    """Error that says why the losses of a batch are not finite: a row or, where no row's loss is finite, a parameter.

    Args:
        moment (`str`): such as "before policy update 3".
        losses (`list[tuple[int, float]]`): each row with its loss.
        name_of_row (`Callable`): what the user calls a row.
        parameters (`Iterable[tuple[str, torch.Tensor]]`): what is trained, by name.
    """
    bad = [(row, loss) for row, loss in losses if not math.isfinite(loss)]
    if len(bad) == len(losses):
        error = explain_parameters(moment, parameters)
        if error is None and len(losses) > 1:
            error = _diverged(moment, f"none of the {len(losses)} losses of the batch is finite")
        if error is not None:
            return error
    # Finite losses may have a sum that is not.
    row, loss = max(bad or losses, key=lambda pair: abs(pair[1]))
    others = f", one of {len(bad)} among {len(losses)} that are not finite" if len(bad) > 1 else ""
    return ValueError(
        f"training has diverged {moment}: {name_of_row(row)} has the loss {loss:g}{others}; look at its rewards, or lower "
        "`learning_rate`"
    )


def explain_parameters(moment: str, parameters: Iterable[tuple[str, torch.Tensor]]) -> ValueError | None:
    """An error to raise that names a parameter that is not finite; `None` if all are. The same on all processes, each of
    which looks at its pieces where parameters are partitioned."""
    pieces = [(name, own_piece(parameter).detach()) for name, parameter in parameters]
    bad = []
    if not get_total_norm([piece for _, piece in pieces]).isfinite():
        bad = [name for name, piece in pieces if not piece.isfinite().all()]
    if PartialState().num_processes > 1:
        bad = list(dict.fromkeys(gather_object(bad)))
    if not bad:
        return None
    return _diverged(moment, f"{len(bad)} of {len(pieces)} parameters are not finite, `{bad[0]}` among them")


def _diverged(moment: str, what: str) -> ValueError:
    return ValueError(
        f"training has diverged {moment}: {what}; lower `learning_rate`, raise `warmup_steps`, or clip gradients by "
        "`max_grad_norm`"
    )
