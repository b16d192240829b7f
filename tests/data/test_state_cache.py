import copy
import logging

import pytest
import torch

from boost_trl.data.state_cache import action_states, unit_embeddings
from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.data.trajectory_store import TrajectoryStore


@pytest.fixture
def store(tiny_tokenizer, make_dialogues):
    return TrajectoryStore(
        tokenize_trajectories(make_dialogues(10, seed=8), tiny_tokenizer), tiny_tokenizer.pad_token_id
    )


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_stored_states_are_those_before_each_action(make_tiny_model, store, tmp_path, architecture):
    model = make_tiny_model(architecture)
    states = action_states(model, store, torch.float32, tmp_path)
    for row in range(len(store)):
        batch = store.collate([row], tokens=True)
        with torch.no_grad():
            hidden = model(batch.input_ids, output_hidden_states=True).hidden_states[-1][0]
        torch.testing.assert_close(states[store.state_slice(row)], hidden[batch.state_index], rtol=1e-4, atol=1e-5)


def test_the_size_is_said_before_writing_and_nothing_is_computed_twice(make_tiny_model, store, tmp_path, caplog):
    model = make_tiny_model()
    with caplog.at_level(logging.WARNING):
        first = action_states(model, store, torch.bfloat16, tmp_path)
    assert first.dtype == torch.bfloat16
    assert f"({store.num_states:,} tokens)" in caplog.text and "MiB" in caplog.text
    caplog.clear()
    model.forward = model.transformer.forward = None  # a second computation would fail
    again = action_states(model, store, torch.bfloat16, tmp_path)
    assert torch.equal(first, again) and not caplog.text


def test_a_models_training_mode_is_left_as_it_was(make_tiny_model, store, tmp_path):
    model = make_tiny_model().train()
    unit_embeddings(model, store, tmp_path)
    assert model.training


def test_embeddings_are_those_of_the_model_without_its_adapter(make_tiny_model, store, tmp_path):
    from peft import LoraConfig, get_peft_model

    plain = unit_embeddings(make_tiny_model(), store, tmp_path / "plain")
    adapted = get_peft_model(make_tiny_model(), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False))
    ids = store.collate([0], tokens=True).input_ids
    assert not torch.allclose(adapted(ids).logits, make_tiny_model()(ids).logits, atol=1e-3)
    torch.testing.assert_close(unit_embeddings(adapted, store, tmp_path / "adapted"), plain)


def test_the_cache_lies_below_the_packages_root(make_tiny_model, store, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path / "ours"))
    unit_embeddings(make_tiny_model(), store)
    monkeypatch.delenv("BOOST_TRL_CACHE")
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    unit_embeddings(make_tiny_model(), store)
    written = sorted(path.relative_to(tmp_path).parent.as_posix() for path in tmp_path.rglob("*.safetensors"))
    assert written == ["assets/boost_trl/hidden_states", "ours/hidden_states"]


@pytest.mark.parametrize(
    "setting",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rms_norm_eps": 1e-2},
        {"hidden_act": "gelu"},
        {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 4},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_the_same_weights_under_another_configuration_are_another_model(make_tiny_model, store, tmp_path, setting):
    model = make_tiny_model("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10)
    config = copy.deepcopy(model.config)
    config.update(setting)
    other = type(model)(config)
    other.load_state_dict(model.state_dict())
    first = unit_embeddings(model, store, tmp_path)
    second = unit_embeddings(other, store, tmp_path)
    assert not torch.allclose(first, second, atol=1e-3)
    torch.testing.assert_close(second, unit_embeddings(other, store, tmp_path / "fresh"))
