"""Before a row's second visit: its weight, and what is said where there is none."""

import numpy as np
import pytest
from sft_tiny import make_args, make_model, make_rows, make_tokenizer

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer


WARNING = "needs a second visit"


def make_trainer(folder, **overrides):
    settings = {"selector": "rank", "selector_baseline": "token", "max_steps": -1, "num_train_epochs": 1}
    return BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(folder, **{**settings, **overrides}),
        train_dataset=make_rows(48),
        processing_class=make_tokenizer(),
        validation_dataset=make_rows(6),
    )


def test_every_row_of_the_first_pass_weighs_one(tmp_path):
    trainer = make_trainer(tmp_path)
    seen, update = [], trainer.selector.update

    def see(ids, losses, gamma):
        seen.append(trainer.selector.weights(ids).numpy())
        update(ids, losses, gamma)

    trainer.selector.update = see
    trainer.train()
    np.testing.assert_allclose(np.stack(seen), np.ones((16, 3)), rtol=1e-6)
    assert trainer.selector.weights().max() > 1.2  # what the next pass would use


@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        ({}, True),
        ({"selector": "bds"}, True),
        ({"max_steps": 16}, True),
        ({"num_train_epochs": 2}, False),
        ({"max_steps": 17}, False),
        ({"selector": "bmo"}, False),
        ({"selector": "uniform"}, False),
    ],
    ids=str,
)
def test_one_epoch_is_said_to_be_too_short(settings, warns, tmp_path, caplog):
    make_trainer(tmp_path, **settings).train()
    messages = [record.getMessage() for record in caplog.records if WARNING in record.getMessage()]
    assert len(messages) == warns
    if warns:
        assert "`num_train_epochs`" in messages[0] and "selector='bmo'" in messages[0]
