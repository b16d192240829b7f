"""What cannot be weighted is refused before training, in one line."""

import pytest
from datasets import Dataset
from dpo_tiny import make_preferences, make_trainer
from sft_tiny import make_pairs

from boost_trl import BilevelDPOConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": ["aot"]}, r"`loss_type` must be one of 'sigmoid', 'hinge', 'ipo', 'robust' .*, got \['aot'\]"),
        ({"loss_type": ["sigmoid", "sft"]}, "`loss_type` must be one of"),
        ({"ld_alpha": 0.5}, "`ld_alpha` must be None for pairs to be weighted, got 0.5"),
        ({"use_weighting": True}, "`use_weighting` must be False"),
        ({"sync_ref_model": True}, "`sync_ref_model` must be False"),
        ({"f_divergence_type": "forward_kl"}, "`f_divergence_type` must be 'reverse_kl'"),
        ({"rho_init": 0.5, "rho_increment": 0.3, "num_train_epochs": 4, "max_steps": -1}, "reaches ρ ="),
    ],
)
def test_settings(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, validation=make_preferences(4), **settings)


@pytest.mark.parametrize(
    ("train", "validation", "settings", "error", "message"),
    [
        (None, Dataset.from_list([]), {}, ValueError, "`validation_dataset` is empty"),
        (None, [1], {}, TypeError, "`validation_dataset` must be a `Dataset`, got `list`"),
        (make_preferences().to_iterable_dataset(), make_preferences(4), {}, TypeError, "`train_dataset` must be a"),
        (None, make_pairs(4), {}, ValueError, r"`validation_dataset` must have rows .* no \['chosen', 'rejected'\]"),
        (make_pairs(4), make_preferences(4), {}, ValueError, "`train_dataset` must have rows"),
        (None, make_preferences(4), {"validation_loss": "sft"}, ValueError, "set `validation_loss='dpo'`"),
        (
            make_preferences(4).map(lambda row, i: {"chosen": None if i == 2 else "w1"}, with_indices=True),
            make_preferences(4),
            {},
            ValueError,
            "`train_dataset`, row 2, column 'chosen': is None",
        ),
        (None, make_preferences(3), {"selector": "validated"}, ValueError, "usable rows that differ, and it has 3"),
        (None, make_preferences(4), {"weight_column": "weight"}, ValueError, "no column 'weight'"),
    ],
)
def test_data(train, validation, settings, error, message, tmp_path):
    with pytest.raises(error, match=message):
        make_trainer(tmp_path, train, validation, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation_loss": "both"}, "`validation_loss` must be one of 'dpo', 'sft', got 'both'"),
        ({"selector": "best"}, "`selector` must be one of"),
        ({"target_effective_fraction": 1.5}, "`target_effective_fraction` must be in"),
        ({"selector": "validated", "weight_scale": "simplex"}, "leave `weight_scale` out"),
    ],
)
def test_configuration(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        BilevelDPOConfig(str(tmp_path), use_cpu=True, bf16=False, **settings)


def test_settings_without_effect_are_said(tmp_path, caplog):
    make_trainer(tmp_path, selector="rank", label_column="good")
    assert "this is plain DPO. Without effect: `selector`, `label_column`" in caplog.text


def test_a_loss_that_is_not_finite_names_its_pair(tmp_path):
    trainer = make_trainer(tmp_path, validation=make_preferences(4, first=20), learning_rate=1e30, max_steps=4)
    with pytest.raises(
        ValueError, match=r"(the loss of row \d+ of `(train|validation)_dataset`|the loss) is (nan|inf)"
    ):
        trainer.train()
