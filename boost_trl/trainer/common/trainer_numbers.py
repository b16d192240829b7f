"""Trainer's own numbers, which it takes as they are and fails with later."""

from math import inf
from numbers import Integral, Real
from typing import Any


_WHOLE = ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps")
_REAL = ("learning_rate", "weight_decay")


def check_trainer_numbers(args: Any) -> None:
    """Check those that `args` has.

    Raises:
        ValueError: for a batch size, number of micro-batches or `max_length` that is no whole number of at least 1, for
            `max_steps` that is no whole number, and for a learning rate or weight decay that is no number or below 0.
    """
    for name in _WHOLE:
        check_whole(name, getattr(args, name, 1))
    if getattr(args, "max_length", None) is not None:
        check_whole("max_length", args.max_length, " or None")
    for name in _REAL:
        value = getattr(args, name, 0.0)
        if isinstance(value, bool) or not (isinstance(value, Real) and 0 <= float(value) < inf):
            raise ValueError(f"`{name}` must be a finite number and not negative, got {value!r}")
    steps = getattr(args, "max_steps", -1)
    if isinstance(steps, bool) or not isinstance(steps, Integral):
        raise ValueError(f"`max_steps` must be a whole number, -1 for as many as the epochs give, got {steps!r}")


def check_whole(name: str, value: Any, otherwise: str = "") -> None:
    """Raises:
    ValueError: unless the setting `name` is a whole number of at least 1; `otherwise` says what else it may be.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"`{name}` must be a whole number{otherwise}, got {value!r}")
    if value < 1:
        raise ValueError(f"`{name}` must be at least 1{otherwise}, got {value}")
