"""Length of a training that has not begun, as Trainer will count it."""

import math

from transformers import TrainingArguments


def planned_updates(args: TrainingArguments, num_rows: int) -> int:
    """Optimizer steps of a training on `num_rows` prepared rows: what `set_initial_training_values` of Trainer finds by the
    length of its loader, which is made when training begins.

    Args:
        args (`TrainingArguments`): of the training.
        num_rows (`int`): of one pass.
    """
    if args.max_steps > 0:
        return args.max_steps
    return math.ceil(args.num_train_epochs * updates_per_epoch(args, num_rows))


def updates_per_epoch(args: TrainingArguments, num_rows: int) -> int:
    """Optimizer steps of one pass, at least 1. The last one has the micro-batches that are left."""
    processes = 1 if args.accelerator_config.split_batches else args.world_size
    batches = num_rows / (args.train_batch_size * processes)
    batches = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    return max(1, math.ceil(batches / args.gradient_accumulation_steps))
