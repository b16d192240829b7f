"""The moments of training at which weights are learned."""

from collections.abc import Callable

from torch.utils.data import DataLoader
from transformers import TrainerCallback

from boost_trl.trainer.common.finished_run import stop_if_finished


class BilevelCallback(TrainerCallback):
    """Calls functions when training, epochs and optimizer steps begin and end.

    Args:
        begin_training (`Callable`): given the training loader.
        begin_epoch, before_step, after_step, end_epoch, end_training (`Callable`): given nothing. `before_step` comes after
            the last backward of an optimizer batch.
    """

    def __init__(
        self,
        *,
        begin_training: Callable[[DataLoader], None],
        begin_epoch: Callable[[], None],
        before_step: Callable[[], None],
        after_step: Callable[[], None],
        end_epoch: Callable[[], None],
        end_training: Callable[[], None],
    ):
        self._begin_training, self._begin_epoch = begin_training, begin_epoch
        self._before_step, self._after_step = before_step, after_step
        self._end_epoch, self._end_training = end_epoch, end_training

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs):
        self._begin_training(train_dataloader)
        stop_if_finished(state, control)

    def on_epoch_begin(self, args, state, control, **kwargs):
        self._begin_epoch()

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self._before_step()

    def on_step_end(self, args, state, control, **kwargs):
        self._after_step()

    def on_epoch_end(self, args, state, control, **kwargs):
        self._end_epoch()

    def on_train_end(self, args, state, control, **kwargs):
        self._end_training()
