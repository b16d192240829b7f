"""Planned updates against those that Trainer makes."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from torch import nn
from torch.utils.data import BatchSampler
from transformers import Trainer, TrainingArguments

from boost_trl.trainer.common.training_length import planned_updates, updates_per_epoch


LENGTHS = [
    *({}, {"num_train_epochs": 2.5}, {"num_train_epochs": 0.3}, {"max_steps": 5}),
    *({"gradient_accumulation_steps": 3, "num_train_epochs": 2}, {"per_device_train_batch_size": 20}),
    {"dataloader_drop_last": True, "gradient_accumulation_steps": 2, "num_train_epochs": 3},
]


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return {"loss": ((self.weight - x) ** 2).mean()}


@pytest.mark.parametrize("options", LENGTHS, ids=str)
@pytest.mark.parametrize("num_rows", [12, 13])
def test_trainer_makes_the_updates_that_are_planned(num_rows, options, tmp_path):
    args = TrainingArguments(
        str(tmp_path),
        **{"per_device_train_batch_size": 4, "use_cpu": True, "report_to": "none", "num_train_epochs": 1, **options},
    )
    rows = Dataset.from_dict({"x": [float(number) for number in range(num_rows)]})
    trainer = Trainer(Line(), args, train_dataset=rows)
    trainer.train()
    assert trainer.state.global_step == trainer.state.max_steps == planned_updates(args, num_rows)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("drop_last", [False, True])
def test_the_same_on_several_processes(drop_last, split):
    for processes in (2, 3):
        for num_rows in range(1, 60):
            size = 2 * processes if split else 2
            batches = BatchSampler(range(num_rows), size, drop_last)
            loaders = [BatchSamplerShard(batches, processes, place, split_batches=split) for place in range(processes)]
            (length,) = {len(loader) for loader in loaders}
            args = SimpleNamespace(
                train_batch_size=size,
                world_size=processes,
                gradient_accumulation_steps=3,
                dataloader_drop_last=drop_last,
                accelerator_config=SimpleNamespace(split_batches=split),
            )
            assert updates_per_epoch(args, num_rows) == max(1, -(-length // 3))
