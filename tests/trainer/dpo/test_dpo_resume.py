"""A resumed run continues an interrupted one to the last bit, or says why it cannot."""

import pytest
import torch
from dpo_tiny import make_preferences, make_trainer
from peft import LoraConfig
from sft_tiny import logs_without_times, make_pairs
from trl import DPOTrainer

from boost_trl.trainer.common.checkpoint_error import CheckpointError


def saving_trainer(folder, train=None, validation=None, **overrides):
    values = {"max_steps": 6, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2, **overrides}
    validation = make_preferences(5, first=30) if validation is None else validation
    return make_trainer(folder, make_preferences(20) if train is None else train, validation, **values)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"selector": "rank", "rank_refresh_steps": 2, "selector_loss_at": "updated"},
        {"selector": "bmo", "validation_loss": "sft"},
        {"selector": "validated", "selection_guard": False, "target_effective_fraction": 0.5, "selection_rounds": 2},
        {"peft_config": LoraConfig(r=2, target_modules=["q_proj"]), "ref_model": None},
    ],
    ids=["bds", "rank-updated", "bmo-sft", "validated", "lora"],
)
def test_resume_is_exact(overrides, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path / "cache"))
    validation = make_pairs(5) if overrides.get("validation_loss") == "sft" else None
    whole = saving_trainer(tmp_path / "a", validation=validation, **overrides)
    whole.train()
    # Step 2 lies inside the first epoch, step 4 after its end: 20 pairs are four steps of three times two.
    for step in (2, 4):
        resumed = saving_trainer(tmp_path / "b", validation=validation, **overrides)
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / f"checkpoint-{step}"))
        for mine, yours in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
            assert torch.equal(mine, yours)
        for state in ("state_dict", "_bilevel_state"):
            mine, yours = (
                (trainer.selector.state_dict if state == "state_dict" else trainer._bilevel_state)()
                for trainer in (resumed, whole)
            )
            assert mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in yours)
        for mine, yours in zip(logs_without_times(resumed)[:-1], logs_without_times(whole)[:-1], strict=True):
            # TRL counts `num_tokens` from the start of the process.
            assert {**mine, "num_tokens": 0} == {**yours, "num_tokens": 0}
    assert whole.selector.logits().std() > 0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    saving_trainer(folder, max_steps=2).train()
    return str(folder / "checkpoint-2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": make_preferences(19)}, "20 rows, but this dataset has 19"),
        ({"train": make_preferences(20).shuffle(seed=1)}, "rows differ, or their order"),
        ({"validation": make_preferences(5, first=31)}, "another `validation_dataset`"),
        ({"selector": "bmo"}, "`selector='bds'`, this run has 'bmo'"),
        ({"beta": 0.2}, "`beta=0.1`, this run has 0.2"),
    ],
)
def test_a_checkpoint_of_other_rows_or_rules_is_refused(changes, message, checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        saving_trainer(tmp_path, **changes).train(resume_from_checkpoint=checkpoint)


def test_a_checkpoint_of_trls_trainer_is_refused(tmp_path):
    plain = make_trainer(
        tmp_path, make_preferences(20), cls=DPOTrainer, save_strategy="steps", save_steps=2, max_steps=2
    )
    plain.train()
    with pytest.raises(CheckpointError, match="was written without a validation set"):
        saving_trainer(tmp_path / "b").train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_what_is_saved_tells_of_the_weights(tmp_path):
    trainer = saving_trainer(tmp_path, max_steps=2)
    trainer.train()
    trainer.save_model()
    card = (tmp_path / "README.md").read_text()
    assert "Each training example's weight was learned" in card and "Bilevel DPO" in card
    names = {path.name for path in tmp_path.iterdir()}
    assert {"example_weights.parquet", "selector.safetensors", "model.safetensors"} <= names
