"""A row that the sampler draws twice counts twice in the selector."""

from collections import Counter

import numpy as np
import pytest
import torch
from sft_tiny import make_args, make_model, make_pairs, make_rows, make_tokenizer
from torch.utils.data import RandomSampler, WeightedRandomSampler

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.row_weights.example_ids import EXAMPLE_ID


class WithReplacement(BilevelSFTSelfRefineTrainer):
    """Draws 22 rows a pass out of fewer, and keeps what each step was given."""

    weighted = False

    def _get_train_sampler(self, train_dataset=None):
        count = len(self.train_dataset)
        if self.weighted:
            return WeightedRandomSampler([1.0] * count, 22, generator=torch.Generator().manual_seed(3))
        return RandomSampler(self.train_dataset, replacement=True, num_samples=22)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        self.drawn = getattr(self, "drawn", [])
        collated = []

        def read():
            for batch in epoch_iterator:
                collated.append(batch[EXAMPLE_ID].clone())
                yield batch

        result = super().get_batch_samples(read(), num_batches, device)
        if collated:
            self.drawn.append(collated)
        return result


def train(folder, dataset=None, weighted=False, **overrides):
    trainer = WithReplacement(
        make_model(attention_dropout=0.0),
        make_args(folder, **{"max_steps": -1, "num_train_epochs": 2, "per_device_train_batch_size": 6, **overrides}),
        train_dataset=make_rows(9) if dataset is None else dataset,
        processing_class=make_tokenizer(),
        validation_dataset=make_rows(5) if dataset is None else make_pairs(5),
    )
    trainer.weighted, updates, update = weighted, [], trainer.selector.update

    def see(ids, losses, gamma):
        updates.append((np.asarray(ids), np.asarray(losses)))
        update(ids, losses, gamma)

    trainer.selector.update = see
    trainer.train()
    return trainer, updates


@pytest.mark.parametrize("weighted", [False, True], ids=["random", "weighted"])
@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"gradient_accumulation_steps": 2, "selection_loss": "sum"},
        {"padding_free": True, "max_length": None},
        {"selector_loss_at": "updated"},
        {"selector": "bmo"},
        {"selector": "rank", "selector_baseline": "token"},
    ],
    ids=str,
)
def test_as_often_as_it_was_drawn(layout, weighted, tmp_path):
    trainer, updates = train(tmp_path, weighted=weighted, **layout)
    assert len(updates) == len(trainer.drawn)
    repeats = 0
    for (ids, losses), batches in zip(updates, trainer.drawn):
        drawn = flattened(batches, trainer) if "padding_free" in layout else torch.cat(batches).flatten().tolist()
        assert sorted(ids.tolist()) == sorted(drawn)
        for row in set(drawn):
            assert len(set(losses[ids == row])) == 1
        repeats += len(drawn) - len(set(drawn))
    assert sum(len(ids) for ids, _ in updates) == 44 and repeats > 5


def flattened(batches, trainer):
    """Rows of batches that hold their number once per token, by the known lengths of rows."""
    lengths = Counter()
    for ids, tokens in zip(trainer.train_dataset[EXAMPLE_ID], trainer.train_dataset["input_ids"]):
        lengths.update(np.broadcast_to(ids, len(tokens)).tolist())
    drawn = []
    for batch in batches:
        place, numbers = 0, batch.flatten().tolist()
        while place < len(numbers):
            drawn.append(numbers[place])
            place += lengths[numbers[place]]
    return drawn


def test_a_row_answered_by_the_model_counts_once_per_draw(tmp_path):
    """A draw of a masked row becomes two answers, or one and the offline one."""
    online = {"online_ratio": 0.5, "num_generations": 2, "generation_interval": 3, "max_generation_length": 3}
    trainer, updates = train(tmp_path, make_pairs(9), **online)
    for (ids, _), batches in zip(updates, trainer.drawn):
        assert sorted(ids.tolist()) == sorted(torch.cat(batches).flatten().tolist())


def test_packed_sequences_drawn_twice(tmp_path):
    """`bfd` keeps rows whole: a sequence that comes twice brings its rows twice."""
    trainer, updates = train(tmp_path, make_rows(20), packing=True, max_length=24)
    repeats = 0
    for (ids, _), batches in zip(updates, trainer.drawn):
        drawn = flattened(batches, trainer)
        assert sorted(ids.tolist()) == sorted(drawn)
        repeats += len(drawn) - len(set(drawn))
    assert repeats > 3
