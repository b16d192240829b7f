"""Two real processes learn, ask and answer what one does."""

import json

import pytest
from processes import launch_two_processes
from sft_online_two_processes import largest_difference
from sft_online_two_processes import train as train_online
from sft_two_processes import SETTINGS, ZERO, train


pytestmark = pytest.mark.distributed

ONLINE = ("random", "dynamic")
EXACT = ("mask", "rows", "answers", "status")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return launch_two_processes("sft_online_two_processes", tmp_path_factory.mktemp("two"), *SETTINGS, *ONLINE)


@pytest.mark.parametrize("name", SETTINGS)
def test_both_processes_hold_the_same_weights_to_the_last_bit(name, ranks):
    assert ranks[0][name]["logits"] == ranks[1][name]["logits"]
    assert ranks[0][name]["parameters"] == ranks[1][name]["parameters"]
    assert ranks[0][name]["updates"] == ranks[1][name]["updates"]
    assert ranks[0][name]["confidence"] == ranks[1][name]["confidence"]


@pytest.mark.parametrize("name", ["bds", "bmo_exact", "updated", "packed", "validated"])
def test_two_processes_learn_what_one_does(name, ranks, tmp_path, monkeypatch):
    monkeypatch.setenv("BOOST_TRL_CACHE", str(tmp_path))
    assert_equal(train(tmp_path, name, 1), ranks[0][name])


def assert_equal(one, two):
    assert one["updates"] == two["updates"]
    # Validated scores come from micro-batches of other sizes: rounding may swap two ranks.
    assert one["confidence"] == pytest.approx(two["confidence"], rel=1e-6 if one["updates"] else 0.05)
    assert one["confidence"]["num_trusted"] in (7, 11)  # the validation set itself, or rows that nothing trained on
    assert two["logits"] == pytest.approx(one["logits"], rel=1e-4, abs=1e-5)
    assert two["parameters"] == pytest.approx(one["parameters"], rel=1e-4)
    for mine, yours in zip(one["logs"], two["logs"], strict=True):
        assert yours == pytest.approx(mine, rel=1e-4)


def test_rows_repeated_to_fill_the_last_batch_count_once(ranks):
    updates = ranks[0]["tail"]["updates"]
    assert [len(ids) for ids in updates] == [6, 6, 1]  # 13 rows in batches of six: five of the last are repeats
    assert sorted(sum(updates, [])) == list(range(13))


def test_rows_drawn_twice_count_twice_and_those_that_fill_the_last_batch_once(ranks, tmp_path):
    one = train(tmp_path, "repeated", 1)
    assert [len(ids) for ids in one["updates"]] == [6, 6, 4]  # 16 draws of 9 rows
    assert any(len(set(ids)) < len(ids) for ids in one["updates"])
    assert ranks[0]["repeated"]["updates"] == one["updates"]
    assert ranks[0]["repeated"]["logits"] == pytest.approx(one["logits"], rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZERO)
def test_deepspeed_learns_what_one_process_does(name, tmp_path):
    """Two forwards and one backward a micro-batch; with ZeRO-3 every rank runs as many forwards as the others."""
    two = launch_two_processes("sft_two_processes", tmp_path, name)
    assert two[0][name]["logits"] == two[1][name]["logits"]
    assert_equal(train(tmp_path, name, 1), two[0][name])


# Online


def assert_as_one_process(name, ranks, folder):
    first, second = (rank[name] for rank in ranks)
    assert {**first, "files": []} == second  # to the last bit; the first process writes the files
    alone = json.loads(json.dumps(train_online(folder, name, 1)))
    assert len(first["files"]) == 3 and len(first["steps"]) == 5
    for mine, yours in zip(first["steps"], alone["steps"], strict=True):
        assert all(mine[field] == yours[field] for field in EXACT)
    # Ages 0, 1, 0, 1, 0; after a step the ratios are not 1, so that they can differ.
    assert all(weight != 1 for values in first["steps"][1]["weights"].values() for weight in values)
    # Not the logits: near 0 a relative difference says nothing of them.
    for field in ("steps", "files", "weights", "parameters", "logs"):
        assert largest_difference(first[field], alone[field]) < 2e-5, field
    if name == "dynamic":
        assert first["steps"][0]["mask"] != first["steps"][4]["mask"]


@pytest.mark.parametrize("name", ONLINE)
def test_two_processes_refine_as_one_does(name, ranks, tmp_path):
    assert_as_one_process(name, ranks, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_deepspeed_refines_as_one_process_does(name, tmp_path):
    """Also where the processes have unequally many batches to generate: a forward under ZeRO-3 needs all of them."""
    ranks = launch_two_processes("sft_online_two_processes", tmp_path, name)
    assert_as_one_process(name, ranks, tmp_path / "alone")
