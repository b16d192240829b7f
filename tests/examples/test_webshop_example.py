"""The WebShop example: the embedded run, on two processes, and its path for named models with the paper's YAML files."""

import json
import os
import subprocess
import sys

import pytest
from comparison_examples import EXAMPLES, load_example, run_example, save_tiny_model
from comparison_examples import QUICK as QUICK_TRAINING
from peft import PeftModel

from boost_trl import ValuePolicy
from boost_trl.comparison.offline_rl.arguments import PAPER_METHODS
from boost_trl.environments.webshop import WebShop, pretraining


# What the paper's setting needs to end in seconds: products few, everything else as long pages have it.
SHORT = (
    "--dialogues 40 --max_steps 4 --auxiliary_steps 1 --primary_steps 1 --save_strategy no --bf16 False "
    "--per_device_train_batch_size 2 --gradient_accumulation_steps 2 --train_fraction 0.3 --max_new_tokens 4 --games 2 "
    "--validation_games 2 --use_cpu --disable_tqdm True"
).split()
QUICK = [*QUICK_TRAINING, "--environment_kwargs", '{"catalogue": "small", "max_steps": 6}']
RICH_SMALL_SHOP = '{"catalogue": "small", "observation": "text_rich", "max_steps": 4}'


def make_ignorant(monkeypatch):
    for name, value in {"NUM_EPISODES": 200, "COPY_STEPS": 3, "EPISODE_STEPS": 3}.items():
        monkeypatch.setattr(pretraining, name, value)


@pytest.fixture
def example(monkeypatch):
    make_ignorant(monkeypatch)
    return load_example("webshop", monkeypatch)


def test_the_example_compares_methods_on_categories_that_none_trained_on(example, tmp_path, capsys):
    flags = [*QUICK, "--methods", "vanilla", "boost", "oracle_mix"]
    rows = run_example(example, tmp_path, *flags)
    assert [row["method"] for row in rows] == ["vanilla", "boost", "oracle_mix"]
    assert all(0 <= row["score_mean"] <= 1 for row in rows)
    assert 0 <= rows[1]["weights_auc"] <= 1
    assert (tmp_path / "weights_by_kind.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "in 7 categories" in printed and "5 held-out categories" in printed
    assert "One game of BOOST, the best learned method's policy" in printed and " under " in printed

    # A run that goes on trains nothing again.
    results = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}
    assert run_example(example, tmp_path, *flags) == rows and len(results) == 3
    assert all(path.stat().st_mtime_ns == changed for path, changed in results.items())


@pytest.mark.parametrize("noise", ["stale", "none"])
def test_other_pools_and_ilql(example, tmp_path, noise):
    flags = ["--noise", noise, "--algorithm", "ilql", "--methods", "boost", "oracle"]
    rows = run_example(example, tmp_path, *QUICK, *flags)
    assert [row["method"] for row in rows] == (["boost"] if noise == "none" else ["boost", "oracle"])
    assert (rows[0]["weights_auc"] is None) == (noise == "none")


@pytest.mark.parametrize("algorithm", ["mc", "ilql"])
def test_the_files_of_the_papers_setting(example, algorithm):
    flags = ["--config", str(EXAMPLES / "configs" / f"webshop_{algorithm}.yaml"), "--use_cpu", "--bf16", "False"]
    arguments, training_args, model_args = example.WORLD.parse(flags)
    assert model_args.model_name_or_path == "meta-llama/Meta-Llama-3-8B" and model_args.load_in_4bit
    assert (arguments.dialogues, arguments.games, arguments.noise) == (2000, 64, "none")
    assert arguments.methods == list(PAPER_METHODS) and training_args.algorithm == algorithm
    assert arguments.environment_kwargs == {"results_per_page": 3} and training_args.max_new_tokens == 256
    assert training_args.reweighting_head_depth == 4 and training_args.cql_weight == 10
    batches = training_args.per_device_train_batch_size, training_args.gradient_accumulation_steps
    assert batches == {"mc": (4, 4), "ilql": (1, 16)}[algorithm]


@pytest.fixture
def tiny_llama(tmp_path):
    env = WebShop("small", observation="text_rich")
    texts = [env.system_prompt, *(env.reset(task=task)[0] for task in env.tasks()[:50])]
    name = save_tiny_model(tmp_path / "llama", "llama", texts)
    config = tmp_path / "llama" / "config.json"
    # Two roles' prompts with an example are long; rotary positions are no parameters.
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 8192}))
    return name


def test_qlora_on_rich_pages(example, tiny_llama, tmp_path, capsys):
    flags = ["--config", EXAMPLES / "configs" / "webshop_mc.yaml", "--model_name_or_path", tiny_llama, *SHORT]
    flags += ["--environment_kwargs", RICH_SMALL_SHOP, "--lora_r", "2", "--lora_target_modules", "q_proj", "v_proj"]
    rows = run_example(example, tmp_path, *flags, "--methods", "vanilla", "boost", "--save_strategy", "steps")
    assert [row["method"] for row in rows] == ["vanilla", "boost"]
    assert "[button] Search [button_]" in capsys.readouterr().out
    (folder,) = (tmp_path / "runs").glob("42-boost-*")
    assert isinstance(ValuePolicy.from_pretrained(folder).causal_lm, PeftModel)
    settings = json.loads((folder / "result.json").read_text())["settings"]
    assert settings["load_in_4bit"] and settings["reweighting_head_depth"] == 4


@pytest.mark.slow
@pytest.mark.distributed
def test_accelerate_launch_on_two_processes(tmp_path):
    # The pretraining that the processes share is shortened from outside.
    script = tmp_path / "short.py"
    script.write_text(
        "import runpy, sys\nfrom boost_trl.environments.webshop import pretraining\n"
        "pretraining.NUM_EPISODES, pretraining.COPY_STEPS, pretraining.EPISODE_STEPS = 200, 3, 3\n"
        f"sys.argv[0] = {str(EXAMPLES / 'webshop.py')!r}\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += "--num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0".split()
    command += [script, "--output_dir", tmp_path, "--ddp_backend", "gloo", *QUICK, "--methods", "boost", "uniform"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("One game of BOOST, the best learned method's policy") == 1
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["method"] for row in rows] == ["boost", "uniform"]
    saved = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert [result["settings"]["processes"] for result in saved] == [2, 2]
