"""Two real processes (DDP over gloo) train what one does.

Agreement over 8 policy updates, measured in float32: losses to 6 digits (relative error 1e-7), parameters to 5 (5e-6),
learned weights to 4 (4e-5); the two processes among themselves to the last bit.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from offline_rl_two_processes import BY_NAME, PROBE, SETTINGS, save_base, train
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


pytestmark = pytest.mark.distributed
CONFIGS = Path(__file__).parents[3] / "examples" / "accelerate_configs"
RUNS = [*SETTINGS, "saving", "resumed"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("two_processes")


def launch(folder, *arguments, **environment):
    """(JSON values, tensors) by the name of the run, of either rank."""
    # DeepSpeed's settings, which make pieces of the smallest parameters, come with the arguments.
    config = CONFIGS / f"{'fsdp2' if arguments[0] == 'fsdp2' else 'ddp'}.yaml"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    launcher += [
        "--num_processes",
        "2",
        "--main_process_port",
        "0",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    script = Path(__file__).with_name("offline_rl_two_processes.py")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment}
    subprocess.run([*launcher, str(script), str(folder), *arguments], check=True, env=environment, timeout=1200)
    values = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    return [
        {name: (values[rank][name], load_file(folder / f"{name}-rank{rank}.safetensors")) for name in values[rank]}
        for rank in (0, 1)
    ]


@pytest.fixture(scope="module")
def ranks(folder):
    return launch(folder, "ddp", "ilql", *SETTINGS)


def assert_two_equal_one(two, one):
    (two, two_tensors), (one, one_tensors) = two, one
    assert len(one["logs"]) == len(two["logs"]) > 0
    for step, (mine, yours) in enumerate(zip(one["logs"], two["logs"])):
        for key in mine.keys() & yours.keys():
            assert yours[key] == pytest.approx(mine[key], rel=2e-5, abs=2e-6), (step, key)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-4)
    assert two["evaluation"]["eval_loss"] == pytest.approx(one["evaluation"]["eval_loss"], rel=1e-5)
    for key, value in one_tensors.items():
        # φ is compared by its weights: where its gradient should be zero, its Adam makes full steps of rounding.
        if not key.startswith("phi."):
            torch.testing.assert_close(two_tensors[key], value, rtol=1e-5, atol=2e-6, msg=key)


def assert_resumed_equals_straight(rank, kind=""):
    (straight, tensors), (resumed, resumed_tensors) = rank[f"saving{kind}"], rank[f"resumed{kind}"]
    assert [entry["loss"] for entry in resumed["logs"]] == [entry["loss"] for entry in straight["logs"]]
    assert resumed["logs"][-1]["num_tokens"] == straight["logs"][-1]["num_tokens"]
    assert all(torch.equal(resumed_tensors[key], value) for key, value in tensors.items())


@pytest.mark.parametrize("name", RUNS)
def test_both_processes_hold_the_same_to_the_last_bit(name, ranks):
    (values, tensors), (other_values, other_tensors) = (rank[name] for rank in ranks)
    assert tensors.keys() == other_tensors.keys()
    for key, value in tensors.items():
        assert torch.equal(value, other_tensors[key]), key
    assert values["weights"] == other_values["weights"]
    assert values["evaluation"] == other_values["evaluation"]


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_train_what_one_does(name, ranks, folder):
    one = train(folder, name, 1)
    assert one[0]["logs"][0].keys() == ranks[0][name][0]["logs"][0].keys()
    assert_two_equal_one(ranks[0][name], one)


@pytest.mark.parametrize("kind", ["", "_validated"])
def test_a_resumed_run_on_two_processes_equals_the_uninterrupted_one(ranks, kind):
    for rank in ranks:
        assert_resumed_equals_straight(rank, kind)


def test_every_process_plays_its_share_of_the_games(ranks):
    for rank in ranks:
        assert rank["mc"][0]["evaluation"]["eval_num_games"] == 5


def test_the_main_process_alone_writes_the_output_folder(ranks, folder):
    from boost_trl import ValuePolicy

    heads = ValuePolicy.from_pretrained(folder / "mc-2").value_heads
    assert torch.equal(heads.q_weight, ranks[0]["mc"][1]["primary.q_weight"])


def assert_both_stopped_by_row_7(folder):
    messages = [(folder / f"diverged-rank{rank}.txt").read_text() for rank in (0, 1)]
    assert messages[0] == messages[1] and "train_dataset, row 7 has the loss inf" in messages[0]


def test_all_processes_stop_where_one_has_diverged(ranks, folder):
    assert_both_stopped_by_row_7(folder)


def assert_one_policy_moves_at_a_time(values, shared_backbone):
    """Two updates of ψ and two of θ in turn; θ and ψ agree, optimizer states included, where θ begins to move."""
    shared = ["backbone"] if shared_backbone else []
    cycle = [["auxiliary", *shared], ["auxiliary", *shared], [*shared, "primary"], [*shared, "primary"]]
    assert values["moved"] == 2 * cycle
    assert [step for step, equal in enumerate(values["equal"]) if equal and step > 0] == [2, 6]


@pytest.mark.parametrize("name", ["mc", "ilql", "turns", "frozen", "adapters"])
def test_the_other_policy_keeps_still_to_the_last_bit(name, ranks):
    for rank in ranks:
        assert_one_policy_moves_at_a_time(rank[name][0], shared_backbone=name in ("mc", "ilql", "turns"))


# The first time, DeepSpeed compiles its communication for the CPU, which takes minutes.
def launch_deepspeed(folder, engine, *names):
    pytest.importorskip("deepspeed")
    return launch_sharded(folder, engine, *names)


def launch_sharded(folder, engine, *names):
    folder = folder / engine
    folder.mkdir()
    save_base(folder)
    ranks = launch(folder, engine, *names, DS_ACCELERATOR="cpu")
    assert_both_stopped_by_row_7(folder)
    return folder, ranks


@pytest.fixture(scope="module", params=["zero2", "zero3"])
def zero(request, folder):
    return launch_deepspeed(folder, request.param, "ilql", *SETTINGS, *BY_NAME)


@pytest.fixture(scope="module", params=["zero2_bf16", "zero3_bf16"])
def zero_bf16(request, folder):
    return launch_deepspeed(folder, request.param, "adapters", "ilql", "adapters", *BY_NAME)


@pytest.fixture(scope="module")
def one_process(folder):
    save_base(folder)
    return functools.cache(lambda name: train(folder, name, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SETTINGS, *BY_NAME])
def test_deepspeed_trains_what_one_process_does(name, zero, one_process):
    for rank in zero[1]:
        assert_two_equal_one(rank[name], one_process(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_deepspeed_evaluates_a_model_that_was_not_trained_yet(name, zero, one_process):
    expected = one_process(name)[0]["evaluation_before"]["eval_loss"]
    for rank in zero[1]:
        assert rank[name][0]["evaluation_before"]["eval_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ilql", "adapters", *BY_NAME])
def test_deepspeed_with_bfloat16_parameters_trains_the_same_to_their_digits(name, zero_bf16, one_process):
    expected = one_process(name)[0]
    for values, tensors in (rank[name] for rank in zero_bf16[1]):
        assert tensors["primary.q_weight"].dtype == torch.bfloat16
        assert tensors.get("primary.target_q_weight", torch.zeros(())).dtype == torch.float32
        for mine, yours in zip(expected["logs"], values["logs"], strict=True):
            assert yours["loss"] == pytest.approx(mine["loss"], rel=1e-3)
        assert values["evaluation"]["eval_loss"] == pytest.approx(expected["evaluation"]["eval_loss"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ilql", "adapters"])
def test_deepspeed_with_bfloat16_parameters_keeps_the_other_policy_still(name, zero_bf16):
    for rank in zero_bf16[1]:
        assert_one_policy_moves_at_a_time(rank[name][0], shared_backbone=name == "ilql")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero2_offload", "zero3_offload"])
def test_an_optimizer_offloaded_to_the_cpu_changes_nothing(name, folder, one_process):
    # The first time, DeepSpeed compiles its Adam, which takes more minutes.
    _, ranks = launch_deepspeed(folder, name, "ilql", "ilql")
    for rank in ranks:
        assert_two_equal_one(rank["ilql"], one_process("ilql"))
        assert_one_policy_moves_at_a_time(rank["ilql"][0], shared_backbone=True)


def test_a_second_training_is_one(ranks, folder):
    assert "train_loss" in (folder / "again-rank0.txt").read_text()


@pytest.mark.slow
def test_a_second_training_under_deepspeed_is_refused(zero):
    message = (zero[0] / "again-rank0.txt").read_text()
    assert "once under DeepSpeed: make a new trainer" in message


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_deepspeed_saves_a_whole_policy(name, zero):
    from boost_trl import ValuePolicy

    folder, ranks = zero
    reference = folder / "base" if name == "named" else None
    policy = ValuePolicy.from_pretrained(folder / f"{name}-2", reference_model_name_or_path=reference)
    for rank in ranks:
        torch.testing.assert_close(policy(PROBE).logits, rank[name][1]["policy"], rtol=1e-5, atol=2e-6)
    untrained = ValuePolicy.from_pretrained(folder / f"{name}-untrained", reference_model_name_or_path=reference)
    assert untrained.value_heads.q_weight.shape == policy.value_heads.q_weight.shape
    assert not torch.equal(untrained.value_heads.q_weight, policy.value_heads.q_weight)


@pytest.mark.slow
def test_deepspeed_saves_a_whole_folded_policy(zero):
    folder, ranks = zero
    log_policy = AutoModelForCausalLM.from_pretrained(folder / "mc-2")(PROBE).logits.log_softmax(-1)
    for rank in ranks:
        torch.testing.assert_close(log_policy, rank["mc"][1]["policy"].log_softmax(-1), rtol=1e-5, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "_validated"])
def test_deepspeed_resumes_to_the_last_bit(zero, kind):
    for rank in zero[1]:
        assert_resumed_equals_straight(rank, kind)


@pytest.mark.slow
def test_deepspeed_resumes_to_the_last_bit_with_bfloat16_parameters(zero_bf16):
    for rank in zero_bf16[1]:
        assert_resumed_equals_straight(rank)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mc", "ilql", "frozen", "adapters"])
def test_deepspeed_keeps_the_other_policy_still_to_the_last_bit(name, zero):
    for rank in zero[1]:
        assert_one_policy_moves_at_a_time(rank[name][0], shared_backbone=name in ("mc", "ilql"))


@pytest.fixture(scope="module")
def fsdp(folder):
    return launch_sharded(folder, "fsdp2", "ilql", *SETTINGS, *BY_NAME)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SETTINGS, *BY_NAME])
def test_fsdp_trains_what_one_process_does(name, fsdp, one_process):
    for rank in fsdp[1]:
        assert_two_equal_one(rank[name], one_process(name))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["", "_validated"])
def test_fsdp_resumes_to_the_last_bit(fsdp, kind):
    for rank in fsdp[1]:
        assert_resumed_equals_straight(rank, kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mc", "ilql", "frozen", "adapters"])
def test_fsdp_keeps_the_other_policy_still_to_the_last_bit(name, fsdp):
    for rank in fsdp[1]:
        assert_one_policy_moves_at_a_time(rank[name][0], shared_backbone=name in ("mc", "ilql"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mc", *BY_NAME])
def test_fsdp_saves_a_whole_policy(name, fsdp):
    from boost_trl import ValuePolicy

    folder, ranks = fsdp
    policy = ValuePolicy.from_pretrained(
        folder / f"{name}-2", reference_model_name_or_path=folder / "base" if name == "named" else None
    )
    for rank in ranks:
        torch.testing.assert_close(policy(PROBE).logits, rank[name][1]["policy"], rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_a_second_training_under_fsdp_is_refused(fsdp):
    assert "once under FSDP2: make a new trainer" in (fsdp[0] / "again-rank0.txt").read_text()
