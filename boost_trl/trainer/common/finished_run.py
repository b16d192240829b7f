"""A finished run that is resumed. `Trainer` would make one update more, unless the last one ended an epoch."""

import logging

from accelerate import PartialState
from transformers import TrainerControl, TrainerState


logger = logging.getLogger(__name__)


def stop_if_finished(state: TrainerState, control: TrainerControl) -> None:
    """Ask for the end of a training that has nothing left to do, when it begins. `Trainer` looks at `control` after its
    first update only, so a trainer gives it no batch where `control.should_training_stop` is set before one.
    """
    if state.global_step >= state.max_steps:
        control.should_training_stop = True
        if PartialState().is_main_process:
            logger.warning(
                f"{state.global_step} of {state.max_steps} updates are done: nothing is left to train; raise `max_steps` "
                "or `num_train_epochs` to go on"
            )
