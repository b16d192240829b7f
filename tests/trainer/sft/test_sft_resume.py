"""A resumed run continues an interrupted one to the last bit, or says why it cannot."""

import pytest
import torch
from datasets import Dataset
from sft_tiny import logs_without_times, make_args, make_model, make_rows, make_tokenizer, sentence

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.common.checkpoint_error import CheckpointError


def preferences(count=5):
    return Dataset.from_list(
        [
            {"prompt": sentence(i, 3) + " ", "chosen": sentence(i + 1, 4), "rejected": sentence(i + 9, 2 + i % 3)}
            for i in range(count)
        ]
    )


def make_trainer(folder, dataset=None, validation=None, **overrides):
    values = {"max_steps": 6, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2, **overrides}
    return BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(folder, **values),
        train_dataset=make_rows(20) if dataset is None else dataset,
        processing_class=make_tokenizer(),
        validation_dataset=make_rows(5) if validation is None else validation,
    )


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"selector_optimizer": "adam", "selector_loss_at": "updated", "packing": True, "max_length": 12},
        {"selector": "bmo"},
        {"selector": "bmo_exact", "bmo_refresh_steps": 3},
        {"selector": "rank", "selector_baseline": "token", "rank_refresh_steps": 2},
        {"validation_loss": "dpo"},
    ],
    ids=["sparse", "adam-updated-packed", "bmo", "bmo_exact", "rank-token", "dpo"],
)
def test_resume_is_exact(overrides, tmp_path):
    validation = preferences() if overrides.get("validation_loss") == "dpo" else None
    whole = make_trainer(tmp_path / "a", validation=validation, **overrides)
    whole.train()
    # Step 2 lies inside the first epoch, step 4 after its end: 20 rows are four steps of three times two.
    for step in (2, 4):
        resumed = make_trainer(tmp_path / "b", validation=validation, **overrides)
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / f"checkpoint-{step}"))
        for mine, yours in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(mine, yours)
        assert resumed.selector.state_dict().keys() == whole.selector.state_dict().keys()
        for name, value in whole.selector.state_dict().items():
            assert torch.equal(resumed.selector.state_dict()[name], value), name
        for name, value in whole._bilevel_state().items():
            assert torch.equal(resumed._bilevel_state()[name], value), name
        for mine, yours in zip(logs_without_times(resumed)[:-1], logs_without_times(whole)[:-1], strict=True):
            # TRL counts `num_tokens` from the start of the process.
            assert {**mine, "num_tokens": 0} == {**yours, "num_tokens": 0}
    assert whole.selector.logits().std() > 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    make_trainer(folder, max_steps=2).train()
    return str(folder / "checkpoint-2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": make_rows(19)}, "20 rows, but this dataset has 19"),
        ({"dataset": make_rows(20).shuffle(seed=1)}, "rows differ, or their order"),
        ({"selector": "bmo"}, "`selector='bds'`, this run has 'bmo'"),
        ({"selector_baseline": "token"}, "`selector_baseline=None`, this run has 'token'"),
    ],
)
def test_a_checkpoint_of_other_rows_or_rules_is_refused(changes, message, checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        make_trainer(tmp_path, **changes).train(resume_from_checkpoint=checkpoint)


def test_a_checkpoint_with_weights_needs_the_validation_set(checkpoint, tmp_path):
    plain = BilevelSFTSelfRefineTrainer(
        make_model(), make_args(tmp_path, max_steps=6), train_dataset=make_rows(20), processing_class=make_tokenizer()
    )
    with pytest.raises(
        CheckpointError, match="written with learned weights, and this trainer has no `validation_dataset`"
    ):
        plain.train(resume_from_checkpoint=checkpoint)


def test_a_checkpoint_without_weights_is_refused(tmp_path):
    plain = BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(tmp_path / "plain", save_strategy="steps", save_steps=2, max_steps=2),
        train_dataset=make_rows(20),
        processing_class=make_tokenizer(),
    )
    plain.train()
    with pytest.raises(CheckpointError, match="was written without a validation set"):
        make_trainer(tmp_path / "b").train(resume_from_checkpoint=str(tmp_path / "plain" / "checkpoint-2"))
