"""Two real processes learn what one does."""

import pytest
from dpo_two_processes import SETTINGS, train
from processes import launch_two_processes
from sft_two_processes import ZERO


pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return launch_two_processes("dpo_two_processes", tmp_path_factory.mktemp("two"), *SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_both_processes_hold_the_same_weights_to_the_last_bit(name, ranks):
    assert ranks[0][name] == ranks[1][name] | {"logs": ranks[0][name]["logs"]}


@pytest.mark.parametrize("name", ["bds", "answers", "validated"])
def test_two_processes_learn_what_one_does(name, ranks, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path))
    assert_equal(train(tmp_path, name, 1), ranks[0][name])


@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO)
def test_deepspeed_learns_what_one_process_does(name, tmp_path):
    two = launch_two_processes("dpo_two_processes", tmp_path, name)
    assert two[0][name]["logits"] == two[1][name]["logits"]
    assert_equal(train(tmp_path, name, 1), two[0][name])


def assert_equal(one, two):
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
