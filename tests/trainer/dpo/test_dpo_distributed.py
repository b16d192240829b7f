"""Two real processes learn what one does."""

import pytest
from dpo_two_processes import SETTINGS, train
from sft_tiny import launch_two_processes


pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return launch_two_processes("dpo_two_processes.py", tmp_path_factory.mktemp("two"), *SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_both_processes_hold_the_same_weights_to_the_last_bit(name, ranks):
    assert ranks[0][name] == ranks[1][name] | {"logs": ranks[0][name]["logs"]}


@pytest.mark.parametrize("name", ["bds", "answers", "validated"])
def test_two_processes_learn_what_one_does(name, ranks, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path))
    one, two = train(tmp_path, name, 1), ranks[0][name]
    assert one["updates"] == two["updates"]
    assert two["logits"] == pytest.approx(one["logits"], rel=1e-3, abs=1e-5)
    assert two["parameters"] == pytest.approx(one["parameters"], rel=1e-4)
    assert len(one["logs"]) >= 3
    for mine, yours in zip(one["logs"], two["logs"], strict=True):
        assert yours == pytest.approx(mine, rel=1e-4)


def test_pairs_repeated_to_fill_the_last_batch_count_once(ranks):
    updates = ranks[0]["tail"]["updates"]
    assert [len(ids) for ids in updates] == [6, 6, 1]  # 13 pairs in batches of six: five of the last are repeats
    assert sorted(sum(updates, [])) == list(range(13))
