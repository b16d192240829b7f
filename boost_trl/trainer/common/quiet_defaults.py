"""Defaults of the libraries' arguments of which these warn themselves, said so that they do not."""

import torch
from transformers import TrainingArguments


def set_quiet_defaults(args: TrainingArguments) -> None:
    """Change `args` in place, before the library's `__post_init__`; what is trained stays the same."""
    if getattr(args, "activation_checkpointing", False) is None:
        # transformers warns of `gradient_checkpointing`, TRL's default, from 5.23 on; before, it knows no other name.
        args.activation_checkpointing = args.gradient_checkpointing
    if not torch.accelerator.is_available():
        args.dataloader_pin_memory = False  # as with `use_cpu`; torch warns of memory that is pinned for no device
