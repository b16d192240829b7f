"""The moments of `Trainer`'s loop at which the phases of training happen that are no backward pass."""

from collections.abc import Callable

from transformers import TrainerCallback

from boost_trl.trainer.common.finished_run import stop_if_finished


class AroundUpdates(TrainerCallback):
    """Calls the given functions, each without arguments, around training and around every policy update.

    Args:
        before_training, before_update, after_update, after_training (`Callable`): `before_update` follows the last backward
            pass of an update, when gradients are whole and clipped; `after_update` the optimizer's step.
    """

    def __init__(
        self,
        *,
        before_training: Callable[[], None],
        before_update: Callable[[], None],
        after_update: Callable[[], None],
        after_training: Callable[[], None],
    ):
        self.before_training, self.after_training = before_training, after_training
        self.before_update, self.after_update = before_update, after_update

    def on_train_begin(self, args, state, control, **kwargs):
        self.before_training()
        stop_if_finished(state, control)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.before_update()

    def on_step_end(self, args, state, control, **kwargs):
        self.after_update()

    def on_train_end(self, args, state, control, **kwargs):
        self.after_training()
