"""Without a validation set, and with all weights 1, training is DPOTrainer's to the last bit."""

import inspect

import pytest
import torch
from dpo_tiny import make_dpo_args, make_preferences, make_trainer
from peft import LoraConfig
from sft_tiny import logs_without_times, make_model, make_moe_model, make_tokenizer
from trl import DPOConfig, DPOTrainer

from boost_trl import BilevelDPOConfig, BilevelDPOTrainer


LORA = {"peft_config": LoraConfig(r=2, target_modules=["q_proj"]), "ref_model": None}
CASES = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 2, "max_steps": -1, "num_train_epochs": 2},
    "lora": LORA,
    "lora accumulation": {**LORA, "gradient_accumulation_steps": 2},
    "precomputed": {"precompute_ref_log_probs": True},
    "bf16": {"bf16": True},
    "checkpointing": {"gradient_checkpointing": True},
    "several losses": {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
    "verbose": {"ld_alpha": 0.5, "loss_type": ["hinge"]},
}
# Where the reference is read once for all, as it has to be for weights.
WEIGHTED = {
    **{name: CASES[name] for name in ("plain", "accumulation", "lora", "lora accumulation", "bf16", "checkpointing")},
    "ipo": {"loss_type": ["ipo"]},
    "hinge": {"loss_type": ["hinge"], "beta": 0.5},
    "robust": {"loss_type": ["robust"], "label_smoothing": 0.2},
}


def run(cls, folder, weighted=False, moe=False, **overrides):
    columns = {"weight": [1.0] * 12} if weighted else {}
    if weighted and cls is BilevelDPOTrainer:
        overrides["weight_column"] = "weight"
    trainer = make_trainer(
        folder,
        make_preferences(12, columns=columns),
        cls=cls,
        model=make_moe_model() if moe else None,
        eval_dataset=make_preferences(5, first=20),
        **overrides,
    )
    trainer.train()
    trainer.evaluate()
    return trainer, torch.get_rng_state()


def assert_identical(ours, theirs):
    (ours, our_rng), (theirs, their_rng) = ours, theirs
    assert logs_without_times(ours) == logs_without_times(theirs)
    assert len(theirs.state.log_history) >= 4
    for (name, mine), (_, yours) in zip(ours.model.named_parameters(), theirs.model.named_parameters(), strict=True):
        assert torch.equal(mine, yours), name
    assert torch.equal(our_rng, their_rng)


@pytest.mark.parametrize("name", CASES)
def test_bit_identical_to_dpo_trainer(name, tmp_path):
    assert_identical(run(BilevelDPOTrainer, tmp_path, **CASES[name]), run(DPOTrainer, tmp_path, **CASES[name]))


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_one_change_nothing(name, tmp_path):
    theirs = run(DPOTrainer, tmp_path, precompute_ref_log_probs=True, **WEIGHTED[name])
    assert_identical(run(BilevelDPOTrainer, tmp_path, weighted=True, **WEIGHTED[name]), theirs)


def test_constructor_is_dpo_trainers_plus_the_validation_set():
    ours = list(inspect.signature(BilevelDPOTrainer.__init__).parameters.values())
    theirs = list(inspect.signature(DPOTrainer.__init__).parameters.values())
    assert [(p.name, p.kind, p.default) for p in ours[: len(theirs)]] == [(p.name, p.kind, p.default) for p in theirs]
    assert [(p.name, p.kind) for p in ours[len(theirs) :]] == [("validation_dataset", inspect.Parameter.KEYWORD_ONLY)]


def test_plain_arguments_are_accepted_and_stay_the_users_own(tmp_path):
    args = make_dpo_args(tmp_path, DPOConfig, beta=0.3)
    options = {"train_dataset": make_preferences(), "processing_class": make_tokenizer()}
    plain = BilevelDPOTrainer(make_model(), make_model(seed=1), args, **options)
    assert plain.args is args and plain._tag_names == DPOTrainer._tag_names
    learned = BilevelDPOTrainer(
        make_model(), make_model(seed=1), args, **options, validation_dataset=make_preferences(5, first=20)
    )
    assert isinstance(learned.args, BilevelDPOConfig) and learned.args.beta == 0.3
    assert learned.args.precompute_ref_log_probs and not args.precompute_ref_log_probs
