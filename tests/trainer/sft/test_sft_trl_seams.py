"""Names of TRL, transformers and accelerate that are not public but that the SFT trainer stands on, beside those of
`common/test_library_seams.py`."""

import dataclasses
import inspect

import accelerate.state
import pytest
import torch
from sft_tiny import make_args, make_model, make_rows, make_tokenizer
from transformers import Trainer, TrainerCallback
from trl import DPOTrainer, SFTConfig, SFTTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import FusedCausalLMOutput, get_config_model_id


def parameters(function):
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (SFTTrainer.create_model_card, ["self", "model_name", "dataset_name", "tags"]),
        (Trainer._get_num_items_in_batch, ["self", "batch_samples", "device"]),
        (Trainer._prepare_inputs, ["self", "inputs"]),
        (Trainer._remove_unused_columns, ["self", "dataset", "description"]),
        (Trainer.get_tp_size, ["self"]),
        (DPOTrainer._prepare_dataset, ["self", "dataset", "processing_class", "args", "dataset_name"]),
        (get_config_model_id, ["config"]),
    ],
)
def test_signatures(function, expected):
    assert parameters(function) == expected


def test_fields():
    assert {"log_probs", "label_mask"} <= {field.name for field in dataclasses.fields(FusedCausalLMOutput)}
    assert {"pad_token_id", "max_length", "truncation_mode", "pad_to_multiple_of"} <= {
        field.name for field in dataclasses.fields(DataCollatorForPreference)
    }
    assert isinstance(accelerate.state.GradientState.end_of_dataloader, property)
    assert isinstance(accelerate.state.GradientState.remainder, property)
    assert hasattr(TrainerCallback, "on_pre_optimizer_step")


def test_attributes_of_a_trainer(tmp_path):
    trainer = SFTTrainer(
        make_model(), make_args(tmp_path, SFTConfig), train_dataset=make_rows(4), processing_class=make_tokenizer()
    )
    for name in (
        "_tokenizer",
        "_skip_prepare_dataset",
        "_formatting_func",
        "padding_free",
        "_metrics",
        "model_wrapped",
    ):
        assert hasattr(trainer, name), name
    assert trainer._train_batch_size == 3
    trainer._set_signature_columns_if_needed()
    assert isinstance(trainer._signature_columns, list)


def test_the_fused_forward_returns_log_probs_of_next_tokens(tmp_path):
    """Columns are the predictions of tokens 1 to S − 1, zero where the label is −100."""
    trainer = SFTTrainer(
        make_model(), make_args(tmp_path, SFTConfig), train_dataset=make_rows(4), processing_class=make_tokenizer()
    )
    ids = torch.tensor([[4, 5, 6, 7]])
    labels = torch.tensor([[4, 5, -100, 7]])
    model = trainer.model.eval()
    fused = model(input_ids=ids, labels=labels, use_cache=False, fused_lm_head=True)
    plain = model(input_ids=ids).logits.log_softmax(-1)
    expected = torch.stack([plain[0, 0, 5], plain.new_zeros(()), plain[0, 2, 7]])[None]
    torch.testing.assert_close(fused.log_probs, expected)
    assert fused.label_mask.tolist() == [[True, False, True]]
