"""A checkpoint continues with the validation set and the loss that it was written with, and no other."""

import pytest
from datasets import Dataset
from sft_tiny import make_args, make_model, make_rows, make_tokenizer, sentence

from boost_trl.trainer.bilevel_sft_self_refine_trainer import BilevelSFTSelfRefineTrainer
from boost_trl.trainer.common.checkpoint_error import CheckpointError


def preferences(count=5, first=0):
    return Dataset.from_list(
        [
            {"prompt": sentence(i, 3) + " ", "chosen": sentence(i + 1, 4), "rejected": sentence(i + 9, 2 + i % 3)}
            for i in range(first, first + count)
        ]
    )


def make_trainer(folder, loss, validation, max_steps=2):
    return BilevelSFTSelfRefineTrainer(
        make_model(),
        make_args(folder, save_strategy="steps", save_steps=1, max_steps=max_steps, validation_loss=loss),
        train_dataset=make_rows(9),
        processing_class=make_tokenizer(),
        validation_dataset=validation,
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    make_trainer(folder / "dpo", "dpo", preferences(), max_steps=1).train()
    make_trainer(folder / "sft", "sft", make_rows(5), max_steps=1).train()
    return folder


@pytest.mark.parametrize(
    ("written", "loss", "validation", "message"),
    [
        ("dpo", "dpo", preferences(first=7), "written with another `validation_dataset`"),
        ("dpo", "dpo", preferences(9), "written with another `validation_dataset`"),
        ("sft", "sft", make_rows(5).select([0, 2, 1, 3, 4]), "written with another `validation_dataset`"),
        ("sft", "sft", make_rows(6), "written with another `validation_dataset`"),
        ("sft", "dpo", preferences(), "written with `validation_loss='sft'`, this run has 'dpo'"),
        ("dpo", "sft", make_rows(5), "written with `validation_loss='dpo'`, this run has 'sft'"),
        ("sft", max, make_rows(5), "written with `validation_loss='sft'`, this run has 'max'"),
    ],
)
def test_other_validation_is_refused(written, loss, validation, message, checkpoints, tmp_path):
    trainer = make_trainer(tmp_path, loss, validation)
    with pytest.raises(CheckpointError, match=message):
        trainer.train(resume_from_checkpoint=str(checkpoints / written / "checkpoint-1"))


def test_the_same_rows_in_another_file_are_accepted(checkpoints, tmp_path):
    for written, rows in (("dpo", preferences()), ("sft", make_rows(5))):
        rows.to_parquet(tmp_path / "rows.parquet")
        rows = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / written))
        trainer = make_trainer(tmp_path, written, rows)
        trainer.train(resume_from_checkpoint=str(checkpoints / written / "checkpoint-1"))
        assert trainer.state.global_step == 2
