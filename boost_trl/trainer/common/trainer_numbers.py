"""Trainer's own numbers, which it takes as they are and fails with later."""

import math
from typing import Any


_WHOLE = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")


def check_trainer_numbers(args: Any) -> None:
    """Check those that `args` has.

    Raises:
        ValueError: for a batch size or number of micro-batches below 1, and for a learning rate below 0.
    """
    for name in _WHOLE:
        if getattr(args, name, 1) < 1:
            raise ValueError(f"`{name}` must be at least 1, got {getattr(args, name)}")
    rate = getattr(args, "learning_rate", 0.0)
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(f"`learning_rate` must be a finite number and not negative, got {rate}")
