"""A forward of the trained model that nothing is learned from."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


class EvaluationForward:
    """The wrapped model in evaluation mode, without gradients and under the training's autocast: without dropout its losses do
    not depend on when they are computed, nor does a resumed run.

    Args:
        wrapped_model (`Callable`): returns the model as it is trained, which may be wrapped anew.
        autocast (`Callable`): returns the context of a training forward.
        prepare_inputs (`Callable`): puts a batch where the model is.
    """

    def __init__(
        self,
        wrapped_model: Callable[[], torch.nn.Module],
        autocast: Callable[[], AbstractContextManager],
        prepare_inputs: Callable[[dict[str, Any]], dict[str, Any]],
    ):
        self._wrapped_model, self._autocast, self.prepare_inputs = wrapped_model, autocast, prepare_inputs

    @contextmanager
    def model(self) -> Iterator[torch.nn.Module]:
        """The model, which trains again afterwards if it did before."""
        model = self._wrapped_model()
        was_training = model.training
        model.eval()
        try:
            with torch.no_grad(), self._autocast():
                yield model
        finally:
            model.train(was_training)

    def __call__(self, **inputs):
        """The outputs of TRL's fused forward for one collated batch."""
        inputs = self.prepare_inputs(inputs)
        with self.model() as model:
            return model(**{"use_cache": False, "fused_lm_head": True, **inputs})
