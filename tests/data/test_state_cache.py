import logging

import pytest
import torch

from boost_trl.data.state_cache import action_states, model_fingerprint, trajectory_embeddings
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
    trajectory_embeddings(model, store, tmp_path)
    assert model.training


def test_embeddings_are_those_of_the_model_without_its_adapter(make_tiny_model, store, tmp_path):
    from peft import LoraConfig, get_peft_model

    plain = trajectory_embeddings(make_tiny_model(), store, tmp_path / "plain")
    adapted = get_peft_model(make_tiny_model(), LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False))
    ids = store.collate([0], tokens=True).input_ids
    assert not torch.allclose(adapted(ids).logits, make_tiny_model()(ids).logits, atol=1e-3)
    torch.testing.assert_close(trajectory_embeddings(adapted, store, tmp_path / "adapted"), plain)


def test_a_models_fingerprint_follows_its_weights(make_tiny_model):
    model = make_tiny_model()
    before = model_fingerprint(model)
    assert before == model_fingerprint(make_tiny_model())
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1e-3
    assert model_fingerprint(model) != before
