"""The model's trainable parameters, moved by a few updates and put back where they were."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import TrainingArguments


class Adaptation:
    """Updates of the trained parameters by an optimizer of their own, outside of the training's.

    There is no second model: the start is kept, and all parameters that do not train are shared with it. Every process makes
    the same updates from the same rows.

    Args:
        model (`nn.Module`): not wrapped by any engine, on the device that it trains on.
        args (`TrainingArguments`): Adam's settings and the largest gradient norm.
    """

    def __init__(self, model: nn.Module, args: TrainingArguments):
        self.model, self.args = model, args
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._start = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def load(self) -> None:
        """Put the parameters where everything started."""
        for parameter, value in zip(self.parameters, self._start):
            parameter.copy_(value)

    def begin(self, learning_rate: float) -> None:
        """Begin anew: the parameters and Adam at their start."""
        self.load()
        args = self.args
        betas = (args.adam_beta1, args.adam_beta2)
        self._optimizer = torch.optim.AdamW(
            self.parameters, lr=learning_rate, betas=betas, eps=args.adam_epsilon, weight_decay=0.0
        )
        self._scaler = torch.amp.GradScaler(args.device.type, enabled=args.fp16)

    def update(self, losses: Iterable[Callable[[], torch.Tensor]]) -> None:
        """One update by the sum of what `losses` return, one micro-batch each."""
        self.model.train()
        for loss in losses:
            self._scaler.scale(loss()).backward()
        self._scaler.unscale_(self._optimizer)
        if self.args.max_grad_norm:
            nn.utils.clip_grad_norm_(self.parameters, self.args.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)


@contextmanager
def adaptation(model: nn.Module, args: TrainingArguments) -> Iterator[Adaptation]:
    """An [`Adaptation`] after which parameters, gradients, random numbers and the model's mode are as before."""
    was_training = model.training
    adapted = Adaptation(model, args)
    devices = [args.device] if args.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            torch.manual_seed(args.seed)
            yield adapted
    finally:
        adapted.load()
        model.zero_grad(set_to_none=True)
        model.train(was_training)
