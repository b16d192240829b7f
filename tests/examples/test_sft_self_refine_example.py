"""`examples/sft_self_refine.py`: its presets, and runs on tiny data."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


EXAMPLES = Path(__file__).parents[2] / "examples"
PRESETS = sorted((EXAMPLES / "configs").glob("sft_*.yaml"))
WORDS = [f"w{i}" for i in range(30)]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    sys.modules.pop("sft_self_refine", None)
    import sft_self_refine

    return sft_self_refine


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_are_understood(example, preset, tmp_path):
    # Half precision and the device are this machine's matter.
    flags = ["--use_cpu", "true", "--bf16", "false", "--output_dir", str(tmp_path)]
    arguments, hub, model_args, training_args = example.parse(["--config", str(preset), *flags])
    values = yaml.safe_load(preset.read_text())
    assert arguments.pool == values["pool"]
    assert training_args.learning_rate == values["learning_rate"]
    assert training_args.output_dir == str(tmp_path)


@pytest.mark.parametrize("model", ["pythia_1b", "llama_3_8b"])
def test_the_papers_settings(example, model, tmp_path):
    flags = ["--use_cpu", "true", "--bf16", "false", "--output_dir", str(tmp_path)]
    preset = EXAMPLES / "configs" / f"sft_{model}.yaml"
    _, _, model_args, args = example.parse(["--config", str(preset), *flags])
    assert (model_args.use_peft, model_args.lora_r, model_args.lora_alpha) == (True, 16, 16)
    assert (args.learning_rate, args.num_train_epochs) == (5e-6, 3)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (8, 4)
    assert args.selector_optimizer == "adam" and args.selector_learning_rate in (None, 1e-4)
    assert (args.rho_init, args.rho_increment, args.bmo_tau) == (0.1, 0.1, 1.0)
    assert (args.generation_interval, args.generation_temperature, args.max_generation_length) == (500, 0.8, 512)
    assert args.generation_batch_size == {"pythia_1b": 64, "llama_3_8b": 16}[model]


def test_the_default_run_small(example, tmp_path, capsys):
    flags = [
        "--num_rows",
        "60",
        "--num_train_epochs",
        "1",
        "--methods",
        "uniform",
        "bds",
        "online_10",
        "--processes",
        "2",
    ]
    example.main([*flags, "--output_dir", str(tmp_path)])
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["method"] for row in rows] == ["uniform", "bds", "online_10"]
    printed = capsys.readouterr().out
    assert "Online 10 %" in printed and "eval loss" in printed
    assert list((tmp_path / "runs" / "online_10-1" / "generations").glob("step-*.parquet"))


def test_an_unknown_pool_is_named(example, tmp_path):
    with pytest.raises(ValueError, match="lake"):
        example.main(["--pool", "lake", "--output_dir", str(tmp_path)])


@pytest.fixture
def tiny_model(tmp_path):
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<eos>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = tmp_path / "model"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_rows(path, names, count):
    lines = [{name: " ".join(WORDS[(i + k) % 30] for k in range(3)) for name in names} for i in range(count)]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return str(path)


def test_the_papers_preset_on_files_with_a_tiny_model(example, tiny_model, tmp_path):
    pool = write_rows(tmp_path / "pool.jsonl", ("instruction", "input", "output"), 24)
    trusted = write_rows(tmp_path / "trusted.jsonl", ("system_prompt", "question", "response"), 24)
    flags = ["--model_name_or_path", str(tiny_model), "--pool_dataset", pool, "--trusted_dataset", trusted]
    flags += ["--num_rows", "16", "--num_trusted", "8", "--num_evaluation", "4", "--num_train_epochs", "1"]
    flags += [
        "--use_cpu",
        "true",
        "--bf16",
        "false",
        "--gradient_accumulation_steps",
        "1",
        "--generation_interval",
        "2",
    ]
    flags += ["--max_generation_length", "4", "--max_length", "32", "--output_dir", str(tmp_path / "out")]
    preset = str(EXAMPLES / "configs" / "sft_pythia_1b.yaml")
    example.main(["--config", preset, *flags, "--methods", "uniform", "bds", "online_10", "--seeds", "0"])
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["num_rows"] for row in rows] == [16, 16, 16]
    assert all(row["weights_auc"] is None for row in rows)
    # What the harness of the documentation loads: an adapter.
    assert (tmp_path / "out" / "runs" / "bds-0" / "adapter_config.json").is_file()


def test_too_few_rows_are_counted(example, tiny_model, tmp_path):
    pool = write_rows(tmp_path / "pool.jsonl", ("instruction", "input", "output"), 5)
    flags = [
        "--pool",
        "hub",
        "--processes",
        "1",
        "--model_name_or_path",
        str(tiny_model),
        "--pool_dataset",
        pool,
        "--num_rows",
        "16",
    ]
    with pytest.raises(ValueError, match="has 5 rows"):
        example.main([*flags, "--num_evaluation", "4", "--output_dir", str(tmp_path / "out")])
