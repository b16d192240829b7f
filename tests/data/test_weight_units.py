import numpy as np
import pytest

from boost_trl.data.tokenization import tokenize_trajectories
from boost_trl.data.trajectory_store import TrajectoryStore
from boost_trl.data.weight_units import WeightUnits


# Rows of 6, 2 and 8 action tokens in turns of 1 + 5, 2 and 2 + 2 + 4.
UNITS = WeightUnits(np.array([2, 1, 3]), np.array([1, 5, 2, 2, 2, 4]), np.array([3, 9, 5, 3, 7, 12]))


def test_units_by_hand():
    assert len(UNITS) == 6 and UNITS.row_lengths.tolist() == [6, 2, 8]
    assert UNITS.rows.tolist() == [0, 0, 1, 2, 2, 2]
    assert UNITS.shares == pytest.approx([1 / 6, 5 / 6, 1, 1 / 4, 1 / 4, 1 / 2])
    assert UNITS.of_rows([2, 0, 2]).tolist() == [3, 4, 5, 0, 1, 3, 4, 5] and len(UNITS.of_rows([])) == 0
    values = np.arange(6.0)
    assert UNITS.total_by_row(values).tolist() == [1, 2, 12]
    assert UNITS.mean_by_row(values) == pytest.approx([5 / 6, 2, (3 + 4) / 4 + 5 / 2])
    first = UNITS.first(2)
    assert first.lengths.tolist() == [1, 5, 2] and first.ends.tolist() == [3, 9, 5] and len(UNITS.first(0)) == 0


def test_drawing_rows_by_their_weight_gives_every_turn_its_own():
    rng = np.random.default_rng(0)
    weights, losses = rng.random(6), rng.normal(size=6)
    weights[2] = 0.0  # the only turn of its row
    weights /= weights.sum()
    # Over all rows that can be drawn: each with its probability and its loss, the mean of its turns' by shares and factors.
    loss_of_row = UNITS.mean_by_row(UNITS.within_rows(weights) * losses)
    expectation = sum(probability * loss for probability, loss in zip(UNITS.total_by_row(weights), loss_of_row))
    assert expectation == pytest.approx((weights * losses).sum(), rel=1e-12)
    assert UNITS.mean_by_row(UNITS.within_rows(weights)) == pytest.approx([1, 1, 1])
    whole = WeightUnits.whole_rows(np.array([3, 1, 7, 2]))
    assert (whole.within_rows(rng.random(4)) == 1).all() and (whole.shares == 1).all()


@pytest.mark.parametrize("max_length", [1024, 25])
def test_turns_are_those_of_the_dialogue(tiny_tokenizer, make_dialogues, max_length):
    dataset = make_dialogues(20, seed=4)
    rows = tokenize_trajectories(dataset, tiny_tokenizer, max_length=max_length)
    store = TrajectoryStore(rows, tiny_tokenizer.pad_token_id, "turn")
    units, words = store.units, tiny_tokenizer.convert_ids_to_tokens(range(len(tiny_tokenizer)))
    counts = units.counts.tolist()
    whole = [len(dataset[int(row)]["rewards"]) for row in store.original_row]
    assert counts == whole if max_length > 25 else sum(counts) < sum(whole)
    everything = store.collate(range(len(store)))
    said = [[] for _ in range(len(units))]
    for unit, action in zip(everything.unit.tolist(), everything.actions.tolist()):
        said[unit].append(words[action])
    assert [len(tokens) for tokens in said] == units.lengths.tolist() == everything.unit_lengths.tolist()
    unit = 0
    for number, row in enumerate(store.original_row):
        answers = [message["content"] for message in dataset[int(row)]["messages"] if message["role"] == "assistant"]
        for answer in answers[: counts[number]]:
            assert said[unit][: len(answer.split())] == answer.split()
            assert words[everything.input_ids[number, units.ends[unit]]] == said[unit][-1]
            unit += 1


def test_whole_rows_end_with_their_last_token(tiny_tokenizer, make_dialogues):
    rows = tokenize_trajectories(make_dialogues(20, seed=4), tiny_tokenizer)
    store = TrajectoryStore(rows, tiny_tokenizer.pad_token_id)
    assert store.units.ends.tolist() == [len(row.input_ids) - 1 for row in rows]
    assert store.units.lengths.tolist() == store.action_counts.tolist()
    batch = store.collate([5, 5, 1])
    assert batch.unit.tolist() == batch.row.tolist() and batch.unit_lengths.tolist() == batch.lengths.tolist()
    with pytest.raises(ValueError, match="`weight_level` must be 'trajectory' or 'turn', got 'token'"):
        TrajectoryStore(rows, tiny_tokenizer.pad_token_id, "token")
