"""Two real processes ask, answer and learn what one does."""

import json

import pytest
from sft_online_two_processes import largest_difference, train
from sft_tiny import launch_two_processes


pytestmark = pytest.mark.distributed

EXACT = ("mask", "rows", "answers", "status")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return launch_two_processes("sft_online_two_processes.py", tmp_path_factory.mktemp("two"), "random", "dynamic")


def assert_as_one_process(name, ranks, folder):
    first, second = (rank[name] for rank in ranks)
    assert {**first, "files": []} == second  # to the last bit; the first process writes the files
    alone = json.loads(json.dumps(train(folder, name, 1)))
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


@pytest.mark.parametrize("name", ["random", "dynamic"])
def test_two_processes_refine_as_one_does(name, ranks, tmp_path):
    assert_as_one_process(name, ranks, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_deepspeed_refines_as_one_process_does(name, tmp_path):
    """Also where the processes have unequally many batches to generate: a forward under ZeRO-3 needs all of them."""
    ranks = launch_two_processes("sft_online_two_processes.py", tmp_path, name)
    assert_as_one_process(name, ranks, tmp_path / "alone")
