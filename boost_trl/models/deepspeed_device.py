"""The device, told to DeepSpeed wherever it is installed, used or not."""

import os

import torch


def tell_deepspeed_the_device() -> None:
    """Let DeepSpeed, which accelerate imports wherever it is installed, not look for an accelerator and warn where there is
    none. To be called before a model is saved or `Trainer` initialised."""
    if not torch.accelerator.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
