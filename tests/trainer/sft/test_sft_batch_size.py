"""`auto_find_batch_size`: an attempt that ran out of memory leaves nothing behind but the model's own updates."""

import pytest
import torch
from sft_tiny import make_args, make_model, make_pairs, make_tokenizer

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


class ShortOfMemory(BilevelSFTSelfRefineTrainer):
    """Runs out of memory in the third step, until a batch has at most `fits` rows."""

    fits = 100

    def training_step(self, model, inputs, *args, **kwargs):
        if self.state.global_step >= 2 and self._train_batch_size > self.fits:
            raise RuntimeError("CUDA out of memory.")
        return super().training_step(model, inputs, *args, **kwargs)


def make_trainer(folder, fits=100, size=8, **overrides):
    # A model that does not learn has the same losses in both attempts.
    still = {"learning_rate": 0.0, "max_steps": 6, "selector": "rank", "selector_baseline": "token"}
    trainer = ShortOfMemory(
        make_model(attention_dropout=0.0),
        make_args(folder, per_device_train_batch_size=size, **{**still, **overrides}),
        train_dataset=make_pairs(20),
        processing_class=make_tokenizer(),
        validation_dataset=make_pairs(7),
    )
    trainer.fits = fits
    return trainer


def state(trainer):
    return trainer.selector.state_dict() | trainer._bilevel_state()


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value.nan_to_num(7), second[name].nan_to_num(7)), name


ONLINE = {"online_ratio": 0.5, "online_mask": "dynamic", "generation_interval": 2, "max_generation_length": 4}


@pytest.mark.parametrize("overrides", [{}, ONLINE, {"selector": "bds"}], ids=["rank", "online", "bds"])
def test_the_attempt_that_fits_is_a_run_of_that_size(overrides, tmp_path):
    found = make_trainer(tmp_path / "a", fits=4, auto_find_batch_size=True, **overrides)
    found.train()
    size = found._train_batch_size
    assert size <= 4
    plain = make_trainer(tmp_path / "b", size=size, **overrides)
    plain.train()
    assert found.selector.num_updates == 6
    assert_same(state(found), state(plain))
    assert found.selector.logits().std() > 0


def test_a_resumed_attempt_starts_from_the_checkpoint(tmp_path):
    saved = make_trainer(tmp_path / "a", size=4, max_steps=2, save_strategy="steps", save_steps=2)
    saved.train()
    checkpoint = str(tmp_path / "a" / "checkpoint-2")
    found = make_trainer(tmp_path / "b", size=4, fits=2, auto_find_batch_size=True, max_steps=4)
    found.train(resume_from_checkpoint=checkpoint)
    plain = make_trainer(tmp_path / "c", size=4, max_steps=4)
    plain._train_batch_size = found._train_batch_size
    plain.train(resume_from_checkpoint=checkpoint)
    assert_same(state(found), state(plain))
    assert found.selector.num_updates == 4


@pytest.mark.parametrize(("asked", "expected"), [(None, 4), (6, 3), (1, 1)])
def test_validation_batches_shrink_alike(asked, expected, tmp_path):
    trainer = make_trainer(tmp_path, per_device_validation_batch_size=asked)
    assert trainer._validation.batch_size == (asked or 8)
    trainer._validation.begin(4)
    assert [len(batch["input_ids"]) for batch in trainer._validation.take(2)] == [expected] * 2
