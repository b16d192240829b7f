import math

import pytest
from datasets import Dataset

from boost_trl import split_by_category, validate_trajectories
from boost_trl.data.splits import subsample
from boost_trl.data.trajectories import to_trajectory


def row(**changes):
    good = {
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "is it red ?"},
            {"role": "user", "content": "yes"},
            {"role": "assistant", "content": "is it a rose ?"},
        ],
        "rewards": [-1.0, 0.0],
        "terminated": True,
        "category": "flowers",
        "source": "offline",
    }
    return {**good, **changes}


def test_a_good_row_passes():
    validate_trajectories([row()])
    assert to_trajectory(row(terminated=None), 0)["terminated"] is True


def test_prompt_completion_rows_are_one_turn_trajectories():
    trajectory = to_trajectory({"prompt": "hi", "completion": "ho", "reward": 2}, 0)
    assert trajectory["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
    assert trajectory["rewards"] == [2.0] and trajectory["terminated"] is True


@pytest.mark.parametrize("format", ["torch", "numpy", "pandas"])
def test_a_datasets_format_changes_nothing(format):
    dataset = Dataset.from_list([row(), row()]).with_format(format)
    validate_trajectories(dataset)
    with pytest.raises(ValueError, match="row 1, column `rewards`"):
        validate_trajectories(Dataset.from_list([row(), row(rewards=[0.0])]).with_format(format))
    assert dataset.format["type"] == format


def test_a_transform_is_applied():
    dataset = Dataset.from_list([row()])
    dataset.set_transform(lambda batch: {**batch, "rewards": [[0.0]] * len(batch["rewards"])})
    with pytest.raises(ValueError, match="1 entries for 2 assistant turns"):
        validate_trajectories(dataset)


def test_both_formats_may_stand_in_one_dataset():
    with pytest.raises(ValueError, match="row 1, column `messages`: is missing"):
        validate_trajectories(Dataset.from_list([row(prompt=None, completion=None, reward=None), {}]))
    one_turn = {"messages": None, "rewards": None, "prompt": "hi", "completion": "ho", "reward": 1.0}
    assert to_trajectory(one_turn, 0)["rewards"] == [1.0]


TWO_ACTIONS = [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    "bad, column, complaint",
    [
        (row(rewards=[0.0]), "rewards", "1 entries for 2 assistant turns"),
        (row(rewards=[0.0, math.nan]), "rewards", "entry 1 is nan"),
        (row(rewards=[0.0, math.inf]), "rewards", "entry 1 is inf"),
        (row(rewards=[0.0, "1"]), "rewards", "entry 1 is '1'"),
        (row(rewards=None), "rewards", "is missing; give a list with one number"),
        (row(rewards=None, reward=1.0), "rewards", "is missing (the row has `reward`); give a list"),
        (row(rewards=1.0), "rewards", "must be a list with one number"),
        (row(messages=[{"role": "user", "content": "hello"}], rewards=[]), "messages", "no assistant turn"),
        (row(messages=[]), "messages", "non-empty list"),
        (row(messages="hello"), "messages", "non-empty list"),
        (row(messages=[{"role": "agent", "content": "a"}]), "messages", "role 'agent'"),
        (row(messages=[{"role": "assistant", "content": None}]), "messages", "string `content`"),
        (row(messages=TWO_ACTIONS, rewards=[0.0, 0.0]), "messages", "both the assistant's"),
        (row(messages=[*row()["messages"], {"role": "user", "content": "x"}]), "messages", "ends with an observation"),
        (
            row(messages=[*row()["messages"][:2], {"role": "system", "content": "x"}], rewards=[0.0]),
            "messages",
            "system",
        ),
        (row(terminated="yes"), "terminated", "true or false"),
        (row(source="web"), "source", "'web'"),
        ({"prompt": "hi"}, "messages", "is missing"),
        ({"prompt": 5, "completion": "ho", "reward": 1.0}, "prompt", "is 5"),
        ({"prompt": None, "completion": "ho", "reward": 1.0}, "prompt", "is None"),
        ({"prompt": "hi", "completion": [None], "reward": 1.0}, "prompt/completion", "turn 1 must be"),
        ({"prompt": "hi", "completion": "ho", "reward": None}, "reward", "entry 0 is None"),
        (row(category=["flowers"]), "category", "is ['flowers']; it must be text"),
        ({"prompt": "hi", "completion": None, "reward": 1.0}, "completion", "is None"),
        ({"prompt": "hi", "completion": {"role": "assistant", "content": "ho"}, "reward": 1.0}, "completion", "is {"),
        (row(rewards=[0.0, -1e12]), "rewards", "entry 1 is -1000000000000.0"),
        (row(rewards=[0.0, -(10**400)]), "rewards", "entry 1 is -1"),
    ],
)
def test_bad_rows_are_refused_by_name(bad, column, complaint):
    with pytest.raises(ValueError, match=f"pool, row 1, column `{column}`") as error:
        validate_trajectories([row(), bad], name="pool")
    assert complaint in str(error.value)


def test_an_empty_dataset_is_refused():
    with pytest.raises(ValueError, match="pool is empty"):
        validate_trajectories([], name="pool")


def labelled(counts):
    return Dataset.from_dict({"category": [name for name, n in counts.items() for _ in range(n)]})


def test_split_shares_no_row_and_no_training_category():
    dataset = labelled(dict.fromkeys("abcdefghij", 10)).add_column("id", list(range(100)))
    split = split_by_category(dataset, train_task_frac=0.6, val_split=0.3, seed=3)
    parts = [set(part["id"]) for part in (split.train, split.validation, split.evaluation)]
    assert set.union(*parts) == set(range(100)) and sum(map(len, parts)) == 100
    assert len(split.train_categories) == 6 and len(split.heldout_categories) == 4
    assert set(split.train["category"]) == set(split.train_categories)
    assert set(split.validation["category"]) == set(split.evaluation["category"]) == set(split.heldout_categories)
    # 30 % of every held-out category, not of all rows together.
    assert all(split.validation["category"].count(name) == 3 for name in split.heldout_categories)
    again = split_by_category(dataset, train_task_frac=0.6, val_split=0.3, seed=3)
    assert again.validation["id"] == split.validation["id"]
    other = split_by_category(dataset, train_task_frac=0.6, val_split=0.3, seed=4)
    assert other.validation["id"] != split.validation["id"]


@pytest.mark.parametrize(
    "counts, options, complaint",
    [
        ({"a": 5}, {}, "split is empty"),
        ({"a": 1, "b": 1}, {}, "validation split is empty"),
        ({"a": 5, "b": 5}, {"train_task_frac": 1.0}, "`train_task_frac` must .* got 1.0"),
        ({"a": 5, "b": 5}, {"val_split": 0}, "`val_split` must .* got 0"),
        ({"a": 5, "b": 5}, {"column": "kind"}, "no column `kind`"),
        ({"a": 5, "": 5}, {}, "row 5 has no `category`"),
    ],
)
def test_impossible_splits_are_refused(counts, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        split_by_category(labelled(counts), **options)


def test_subsample_keeps_order_and_share():
    dataset = Dataset.from_dict({"id": list(range(200))})
    few = subsample(dataset, 0.1, seed=1)["id"]
    assert len(few) == 20 and list(few) == sorted(few)
    assert len(subsample(dataset, 0.0001)) == 1
    with pytest.raises(ValueError, match="`fraction`"):
        subsample(dataset, 0)
