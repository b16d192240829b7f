"""Every YAML file of a paper's setting is parsed, and its first batch built with a tiny model of its architecture."""

from dataclasses import replace

import pytest
from comparison_examples import EXAMPLES, load_example, save_tiny_model
from datasets import Dataset
from trl import get_peft_config

from boost_trl import BilevelOfflineRLTrainer, BilevelSFTSelfRefineTrainer, make_env
from boost_trl.comparison.cells import Cell
from boost_trl.comparison.models import load_model, load_tokenizer
from boost_trl.comparison.offline_rl.worlds import get_world
from boost_trl.scripts import reproduce


CONFIGS = EXAMPLES / "configs"
ARCHITECTURES = {
    "gpt2": "gpt2",
    "Meta-Llama-3-8B": "llama",
    "pythia-1b": "gpt_neox",
    "Meta-Llama-3-8B-Instruct": "llama",
}
ON_A_CPU = ["--use_cpu", "--bf16", "False", "--lora_target_modules", "all-linear"]
# Batch and accumulation of [B] Table 2.
BATCHES = {
    ("twenty_questions", "mc"): (8, 16),
    ("twenty_questions", "ilql"): (8, 16),
    ("car_dealer", "mc"): (8, 2),
    ("car_dealer", "ilql"): (8, 2),
    ("webshop", "mc"): (4, 4),
    ("webshop", "ilql"): (1, 16),
}


def parsed(path, *flags):
    """The cells of `boost-trl reproduce --config path`, and the options of the first."""
    given = ["--config", str(path), "--seeds", "0", *flags]
    reproduce.check_early(given, "boost-trl reproduce")
    arguments, passed, _ = reproduce.make_parser().parse_args_and_config(given)
    made = reproduce.offline_rl_reproduction(arguments, passed)
    return made.cells, made.comparison.options(made.cells[0])


@pytest.mark.parametrize("environment, algorithm", list(BATCHES))
def test_offline_rl(environment, algorithm, tmp_path):
    path = CONFIGS / f"{environment}_{algorithm}.yaml"
    cells, (_, _, named) = parsed(path, *ON_A_CPU)
    assert {cell.setting for cell in cells} == {f"{environment}-{algorithm}-{size}" for size in ("low", "high")}
    env = make_env(environment)
    rows = get_world(environment).offline_rows(env, 24, 0)
    texts = [turn["content"] for row in rows for turn in row["messages"]]
    model = save_tiny_model(tmp_path / "model", ARCHITECTURES[named.model_name_or_path.split("/")[1]], texts)

    flags = ["--model_name_or_path", model, "--data", "low", "--output_dir", str(tmp_path)]
    cells, (arguments, args, model_args) = parsed(path, *ON_A_CPU, *flags)
    assert arguments.train_fraction == get_world(environment).low_data_fraction
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == BATCHES[environment, algorithm]
    assert model_args.use_peft == model_args.load_in_4bit == (environment == "webshop")
    trainer = BilevelOfflineRLTrainer(
        load_model(model_args, args),
        replace(args, cache_dir=str(tmp_path)),
        train_dataset=rows.select(range(20)),
        validation_dataset=rows.select(range(20, 24)),
        processing_class=load_tokenizer(model_args),
        peft_config=get_peft_config(model_args),
    )
    # The trainer's loader gives row numbers, from which it plans the optimizer batch; the store has the tokens.
    (numbers,) = next(iter(trainer.get_train_dataloader())).values()
    batch = trainer.data.store.collate(numbers)
    assert len(batch.input_ids) == len(numbers) == args.per_device_train_batch_size
    assert cells[0] == Cell("vanilla", 0, f"{environment}-{algorithm}-low")


@pytest.mark.parametrize("name, rows_a_step", [("sft_pythia_1b", 32), ("sft_llama_3_8b", 32)])
def test_sft(name, rows_a_step, tmp_path, monkeypatch):
    example = load_example("sft_self_refine", monkeypatch)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    given = ["--config", str(CONFIGS / f"{name}.yaml"), *ON_A_CPU]
    arguments, _, model_args, _ = example.parse(given)
    assert {"mixing_half", "mixing_one", "bds", "bmo", "online_5", "online_10", "online_10_g5", "online_dynamic"} < {
        *arguments.methods
    }
    architecture = ARCHITECTURES[model_args.model_name_or_path.split("/")[1]]
    rows = [{"prompt": f"Count to {i}.\n\n", "completion": f"{list(range(i))}"} for i in range(1, 41)]
    texts = [row["prompt"] + row["completion"] for row in rows]
    model = save_tiny_model(tmp_path / "model", architecture, texts)
    _, _, model_args, args = example.parse([*given, "--model_name_or_path", model, "--output_dir", str(tmp_path)])
    assert (args.rho_init, args.generation_interval, args.max_generation_length) == (0.1, 500, 512)
    rows = Dataset.from_list(rows)
    trainer = BilevelSFTSelfRefineTrainer(
        load_model(model_args, args),
        replace(args, selector="bds", online_ratio=0.1),
        train_dataset=rows.select(range(32)),
        validation_dataset=rows.select(range(32, 40)),
        processing_class=load_tokenizer(model_args),
        peft_config=get_peft_config(model_args),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["labels"] != -100).any()
    assert args.per_device_train_batch_size * args.gradient_accumulation_steps == rows_a_step
    assert model_args.lora_r == model_args.lora_alpha == 16
