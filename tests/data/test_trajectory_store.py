import numpy as np
import pytest
import torch

from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.data.trajectory_store import TrajectoryStore


def test_a_batch_points_at_the_states_actions_and_rows_it_says(tiny_tokenizer, make_dialogues):
    dataset = make_dialogues(12, seed=4)
    rows = tokenize_trajectories(dataset, tiny_tokenizer)
    store = TrajectoryStore(rows, tiny_tokenizer.pad_token_id)
    chosen = [7, 2, 2, 0, 11]
    assert store.is_cut[chosen].tolist() == [False, False, False, True, False]
    batch = store.collate(chosen)
    flat = batch.input_ids.reshape(-1)
    action = state = 0
    for number, index in enumerate(chosen):
        episode = rows[index]
        for k, position in enumerate(episode.action_positions):
            assert batch.row[action] == number
            assert batch.actions[action] == episode.input_ids[position]
            before = number * batch.input_ids.shape[1] + position - 1
            assert batch.state_index[batch.action_index[action]] == before
            assert flat[before] == episode.input_ids[position - 1]
            last = k == len(episode.action_positions) - 1
            assert batch.has_next[action] == (not last or episode.bootstrap_position >= 0)
            if last and episode.bootstrap_position >= 0:
                bootstrap = number * batch.input_ids.shape[1] + episode.bootstrap_position
                assert batch.state_index[batch.action_index[action] + 1] == bootstrap
            action += 1
        state += len(episode.action_positions) + (episode.bootstrap_position >= 0)
    assert len(batch.actions) == action and len(batch.state_index) == state
    assert batch.attention_mask.sum(1).tolist() == [len(rows[index].input_ids) for index in chosen]
    np.testing.assert_allclose(batch.returns, np.concatenate([rows[i].returns for i in chosen]), rtol=1e-6)
    assert batch.lengths.tolist() == [len(rows[i].action_positions) for i in chosen]


def test_the_first_rows_of_a_store_are_a_store_in_its_memory(tiny_tokenizer, make_dialogues):
    rows = tokenize_trajectories(make_dialogues(12, seed=4), tiny_tokenizer)
    rows[1] = None
    store, alone = (TrajectoryStore(these, tiny_tokenizer.pad_token_id) for these in (rows, rows[:6]))
    store.states = torch.randn(store.num_states, 3)
    first = store.first(5)
    assert len(first) == 5 and first.fingerprint(with_rewards=True) == alone.fingerprint(with_rewards=True)
    assert first.original_row.tolist() == [0, 2, 3, 4, 5]
    assert first.action_returns.tolist() == alone.action_returns.tolist()
    alone.states = store.states[: alone.num_states]
    for one, other in zip(vars(first.collate([4, 0])).values(), vars(alone.collate([4, 0])).values()):
        assert torch.equal(one, other)
    assert np.shares_memory(first.action_returns, store.action_returns)
    assert store.first(0).num_states == 0 and store.first(len(store)).fingerprint() == store.fingerprint()
    with pytest.raises(ValueError, match="`count` is 12; the store has 11 rows"):
        store.first(12)
