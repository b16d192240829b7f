"""The examples' path for named models: the YAML files of the paper's setting, with models of a few thousand parameters."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from comparison_examples import EXAMPLES, load_example, run_example, save_tiny_model
from huggingface_hub import HfApi, RepoUrl
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.trainer_utils import get_last_checkpoint

from boost_trl import ValuePolicy, make_env
from boost_trl.comparison.models import load_model
from boost_trl.comparison.offline_rl.arguments import PAPER_METHODS
from boost_trl.scripts import offline_rl


# Everything that takes hours in the paper's setting.
SHORT = {
    "twenty_questions": ["--environment_kwargs", '{"world": "full", "max_questions": 3}', "--dialogues", "60"],
    "car_dealer": ["--environment_kwargs", '{"max_utterances": 6}', "--dialogues", "40"],
}
SHORT_TRAINING = (
    "--max_steps 4 --auxiliary_steps 1 --primary_steps 1 --save_steps 2 --per_device_train_batch_size 2 "
    "--gradient_accumulation_steps 2 --train_fraction 0.3 --max_new_tokens 4 --games 2 --validation_games 2 --use_cpu "
    "--disable_tqdm True"
).split()


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A function of the architecture that saves a tiny model and returns its folder."""

    def save(architecture):
        folder = tmp_path_factory.mktemp(architecture)
        texts = [make_env("car_dealer").reset(seed=seed)[0] for seed in range(50)]
        return save_tiny_model(folder, architecture, texts)

    return save


def flags_of(name, algorithm, model, *more):
    config = EXAMPLES / "configs" / f"{name}_{algorithm}.yaml"
    return ["--config", config, "--model_name_or_path", model, *SHORT[name], *SHORT_TRAINING, *more]


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
@pytest.mark.parametrize("name", list(SHORT))
def test_a_file_means_the_same_to_the_example_and_to_the_command(name, algorithm, monkeypatch):
    path = EXAMPLES / "configs" / f"{name}_{algorithm}.yaml"
    example = load_example(name, monkeypatch)
    flags = ["--config", str(path), "--output_dir", "x", "--use_cpu"]
    arguments, training_args, model_args = example.WORLD.parse(flags)
    script_args, expected, expected_model = offline_rl.make_parser().parse_args_and_config(
        [*flags, "--dataset_name", "none"]
    )
    ours, theirs = training_args.to_dict(), expected.to_dict()
    assert {key: value for key, value in ours.items() if value != theirs[key]} == {}
    ours, theirs = vars(arguments) | vars(model_args), vars(script_args) | vars(expected_model)
    read = yaml.safe_load(path.read_text()).keys() & theirs.keys()
    assert {"environment", "model_name_or_path", "train_task_frac", "val_split"} <= read
    assert {key: ours[key] for key in read} == {key: theirs[key] for key in read}
    assert (training_args.algorithm, arguments.environment, arguments.noise) == (algorithm, name, "none")
    assert arguments.dialogues == {"twenty_questions": 40_000, "car_dealer": 4_400}[name]
    assert arguments.games == 64 and arguments.methods == list(PAPER_METHODS)
    training_args = example.WORLD.parse([*flags, "--learning_rate", "0.5"]).training_args
    assert training_args.learning_rate == 0.5


def test_gpt2_in_the_full_world(tiny_model, monkeypatch, tmp_path, capsys):
    """The paper's four methods; what was killed between training and games, or ran before, is not trained again."""
    example = load_example("twenty_questions", monkeypatch)
    flags = flags_of("twenty_questions", "ilql", tiny_model("gpt2"))
    rows = run_example(example, tmp_path, *flags)
    assert [row["method"] for row in rows] == list(PAPER_METHODS)
    assert "in 10 categories" in capsys.readouterr().out
    (folder,) = (tmp_path / "runs").glob("42-boost-*")
    assert AutoModelForCausalLM.from_pretrained(folder / "backbone").config.n_embd == 16
    saved = json.loads((folder / "result.json").read_text())
    assert saved["settings"]["environment_kwargs"] == {"world": "full", "max_questions": 3}

    (folder / "result.json").unlink()
    checkpoint = Path(get_last_checkpoint(folder), "backbone/model.safetensors")
    before = checkpoint.stat().st_mtime_ns, load_file(folder / "value_heads.safetensors")
    again = run_example(example, tmp_path, *flags)
    assert [row["score_mean"] for row in again] == [row["score_mean"] for row in rows]
    assert checkpoint.stat().st_mtime_ns == before[0]
    heads = load_file(folder / "value_heads.safetensors")
    assert all(torch.equal(heads[name], value) for name, value in before[1].items())
    resumed = json.loads((folder / "result.json").read_text())
    of_the_run = {"seconds": 0, "wall_seconds": 0, "num_tokens": 0}
    assert {**resumed, **of_the_run} == {**saved, **of_the_run}


@pytest.fixture
def hub(monkeypatch):
    """Uploads as (repository, names of files); nothing leaves this machine."""
    uploads = []

    def create_repo(self, repo_id, **kwargs):
        return RepoUrl(f"https://huggingface.co/me/{repo_id.split('/')[-1]}")

    def upload_folder(self, *, repo_id, folder_path, **kwargs):
        uploads.append(
            (repo_id, {p.relative_to(folder_path).as_posix() for p in Path(folder_path).rglob("*") if p.is_file()})
        )

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    return uploads


def test_qlora_is_trained_played_and_pushed(tiny_model, monkeypatch, tmp_path, hub):
    example = load_example("car_dealer", monkeypatch)
    name = tiny_model("llama")
    qlora = "--load_in_4bit --use_peft --lora_r 2 --lora_target_modules q_proj v_proj".split()
    more = [
        *qlora,
        "--methods",
        "vanilla",
        "boost",
        "--save_strategy",
        "no",
        "--push_to_hub",
        "--hub_model_id",
        "me/x",
    ]
    run_example(example, tmp_path, *flags_of("car_dealer", "mc", name, *more))
    assert {repository for repository, _ in hub} == {"me/x-vanilla", "me/x-boost"}
    files = [files for repository, files in hub if repository == "me/x-boost"][-1]
    assert {
        "backbone/adapter_model.safetensors",
        "value_heads.safetensors",
        "reweighting_head.safetensors",
        "README.md",
    } <= files
    (folder,) = (tmp_path / "runs").glob("42-boost-*")
    assert "score_mean" in (folder / "README.md").read_text()
    assert isinstance(ValuePolicy.from_pretrained(folder).causal_lm, PeftModel)
    _, training_args, model_args = example.WORLD.parse(["--model_name_or_path", name, "--use_cpu", "--bf16", *qlora])
    layer = load_model(model_args, training_args).model.layers[0].self_attn.q_proj
    assert layer.weight.quant_type == "nf4" and layer.compute_dtype == torch.bfloat16


@pytest.mark.slow  # `test_webshop_example.py` starts two processes of the same comparison
@pytest.mark.distributed
def test_two_processes_train_one_model_and_share_the_games(tiny_model, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += "--num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0".split()
    command += [EXAMPLES / "car_dealer.py", "--output_dir", tmp_path]
    command += flags_of("car_dealer", "mc", tiny_model("gpt2"), "--methods", "boost", "--games", "3")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("One game of BOOST, the best learned method's policy") == 1
    (row,) = json.loads((tmp_path / "results.json").read_text())
    assert row["method"] == "boost"
    (result,) = tmp_path.glob("runs/*/result.json")
    assert json.loads(result.read_text())["settings"]["processes"] == 2


@pytest.mark.slow  # as the one above
@pytest.mark.distributed
def test_two_processes_run_cells_of_the_grid(tiny_model, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += "--num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0".split()
    command += ["-m", "boost_trl.cli", "reproduce", "--data", "low", "high", "--seeds", "0", "--output_dir", tmp_path]
    command += flags_of("car_dealer", "mc", tiny_model("gpt2"), "--methods", "vanilla", "boost", "--games", "3")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("4 of 4 cells") == 1
    assert {row["size"] for row in json.loads((tmp_path / "results.json").read_text())} == {"low", "high"}
