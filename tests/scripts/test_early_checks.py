"""Mistakes in arguments are said before torch, transformers or a trainer is imported."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from trl import DatasetMixtureConfig, ModelConfig

from boost_trl.scripts import compare, dpo, early_checks, offline_rl, sft_self_refine
from boost_trl.scripts.early_checks import EvaluationOptions
from boost_trl.trainer.dpo.settings import DPOSettings
from boost_trl.trainer.offline_rl.settings import OfflineRLSettings
from boost_trl.trainer.sft.settings import SFTSelfRefineSettings


TRAIN = "--model_name_or_path model --dataset_name rows.jsonl --validation_dataset_name rows.jsonl --output_dir out"
SFT = "--model_name_or_path model --dataset_name rows.jsonl --output_dir out"
PLAY = "--model_name_or_path model --environment twenty_questions"
# What is parsed before heavy imports.
OWN_TYPES = {
    offline_rl: (offline_rl.OfflineRLArguments, OfflineRLSettings, offline_rl.OfflineRLModel, EvaluationOptions),
    sft_self_refine: (
        sft_self_refine.SFTSelfRefineScriptArguments,
        ModelConfig,
        DatasetMixtureConfig,
        SFTSelfRefineSettings,
        EvaluationOptions,
    ),
    dpo: (dpo.DPOScriptArguments, ModelConfig, DatasetMixtureConfig, DPOSettings, EvaluationOptions),
    compare: (compare.CompareArguments, compare.CompareModel, SFTSelfRefineSettings),
}
COMPARE = "--dataset_name answers.jsonl --validation_dataset_name answers.jsonl --model model"
WRITE = f"{PLAY} --dataset_name rows.jsonl --output_path new.jsonl"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "model").mkdir()
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b", "reward": 1.0}) + "\n")
    (folder / "answers.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    (folder / "rows.txt").write_text("rows")
    (folder / "short.yaml").write_text("max_steps: 10\nlearning_rate: 1.0e-3\nlogging_steps: 1\n")
    (folder / "typo.yaml").write_text("learning_rate: 1.0e-3\nloging_steps: 1\n")
    (folder / "evaluate.yaml").write_text("eval_strategy: epoch\nlearning_rate: 1.0e-3\n")
    (folder / "bad.yaml").write_text("a: [1\nb: {")
    return folder


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (f"offline-rl {TRAIN} --beta -1", "`beta` must be positive, got -1.0"),
        (f"offline-rl {TRAIN} --max_steps 39", "and training has 39: raise"),
        (f"offline-rl {TRAIN} --config short.yaml", "and training has 10: raise"),
        (f"offline-rl {TRAIN} --config typo.yaml", "no option `--loging_steps`; did you mean `--logging_steps`?"),
        (f"offline-rl {TRAIN} --config bad.yaml", "`--config` is no YAML"),
        (f"offline-rl {TRAIN} --config nowhere.yaml", "`--config`: there is no file 'nowhere.yaml' here"),
        (
            f"offline-rl {TRAIN} --dataset_name rows.txt",
            "rows.txt: rows are read from files that end with .json, .jsonl",
        ),
        (f"sft-self-refine {SFT} --method validated", "there is no option `--method`; did you mean `--selector`?"),
        (f"offline-rl {TRAIN} --selector validated", "there is no option `--selector`; did you mean `--method`?"),
        (f"offline-rl {TRAIN} --learning_rate -1", "`learning_rate` must be"),
        (f"offline-rl {TRAIN} --num_train_epoch 2", "did you mean `--num_train_epochs`?"),
        (f"offline-rl {TRAIN} --method vanilla", "never reads `validation_dataset_name`"),
        ("offline-rl --model_name_or_path model", "`dataset_name` must be given"),
        (f"offline-rl {TRAIN} --dataset_streaming", "all trajectories are read before training"),
        (f"offline-rl {TRAIN} --load_in_4bit --load_in_8bit", "4 bit precision at the same time"),
        (f"offline-rl {TRAIN} --train_path other.jsonl", "`train_path` is the former name of `dataset_name`"),
        (f"offline-rl {TRAIN} --train_fraction 0", "`train_fraction` must lie in (0, 1], got 0.0"),
        (f"offline-rl {TRAIN} --environment chess", "no environment is called 'chess'"),
        (f"offline-rl {TRAIN} --environment car_dealer --environment_kwargs {{", "which is no JSON"),
        (f"offline-rl {TRAIN} --eval_dataset_name nowhere.jsonl", "no dataset 'nowhere.jsonl'"),
        (f"offline-rl {TRAIN} --model_name_or_path no/thing", "no model 'no/thing'"),
        (f"offline-rl {TRAIN} --reference_model_name_or_path no/thing", "no model 'no/thing'"),
        ("offline-rl --dataset_name rows.jsonl", "`model_name_or_path` must be given"),
        (f"offline-rl {TRAIN} --beta much", "invalid float value: 'much'"),
        (
            f"offline-rl {TRAIN} --eval_strategy steps",
            "rows.jsonl is a file, which has no split 'test': name held-out rows",
        ),
        (f"offline-rl {TRAIN} --config evaluate.yaml", "`eval_strategy` is 'epoch', but rows.jsonl is a file"),
        (f"dpo {SFT} --selector best", "argument --selector: invalid choice: 'best'"),
        (f"dpo {SFT} --validation_loss dpos", "invalid choice: 'dpos' (choose from 'dpo', 'sft')"),
        (f"dpo {SFT} --online_ratio 0.1", "no option `--online_ratio`"),
        (f"dpo {SFT} --keep_fraction 2", "`keep_fraction` must be in (0, 1], got 2.0"),
        (f"sft-self-refine {SFT} --eval_strategy steps", "`eval_strategy` is 'steps', but rows.jsonl is a file"),
        (f"sft-self-refine {SFT} --rho_inti 1", "did you mean `--rho_init`?"),
        (
            f"sft-self-refine {SFT} --rho_init 2",
            "`rho_init` must be in [0, 1] for direct mixing and validated selection, got 2.0",
        ),
        (f"sft-self-refine {SFT} --selector best", "argument --selector: invalid choice: 'best'"),
        (f"sft-self-refine {SFT} --keep_fraction 2", "`keep_fraction` must be in (0, 1], got 2.0"),
        (f"sft-self-refine {SFT} --dataset_name no/rows", "no dataset 'no/rows'"),
        (f"sft-self-refine {SFT} --validation_dataset_name nowhere.csv", "no dataset 'nowhere.csv'"),
        (f"sft-self-refine {SFT} --model_name_or_path no/thing", "no model 'no/thing'"),
        (f"rollout {PLAY} more", "'more' belongs to no option"),
        (
            f"offline-rl {TRAIN} --method sft",
            "argument --method: invalid choice: 'sft' (choose from 'boost', 'validated'",
        ),
        ("sft-self-refine --model_name_or_path model", "must be provided"),
        (f"compare {COMPARE} --dataset_name nowhere.jsonl", "no dataset 'nowhere.jsonl'"),
        ("compare --dataset_name answers.jsonl", "trusted rows must be given"),
        (f"compare {COMPARE} --algorithm ilql", "there is no option `--algorithm`"),
        (f"compare {COMPARE} --dataset_name rows.jsonl --rho_init 1", "there is no option `--rho_init`"),
        (f"compare {COMPARE} --judging_shar 1", "did you mean `--judging_share`?"),
        ("demo --noise bto", "argument --noise: invalid choice: 'bto'"),
        ("demo --gmaes 3", "did you mean `--games`?"),
        (f"rollout {PLAY} --beta -1", "`beta` must be a finite number and not negative, got -1.0"),
        (f"rollout {PLAY} --num_gmaes 1", "did you mean `--num_games`?"),
        (f"rollout {PLAY} --environment chess", "no environment is called 'chess'"),
        (f"rollout {PLAY} --model_name_or_path no/thing", "no model 'no/thing'"),
        (f"synthesize {WRITE} --dataset_name nowhere.jsonl", "no dataset 'nowhere.jsonl'"),
        (f"synthesize {WRITE} --temperature 0", "`temperature` must be a finite number above 0, got 0.0"),
        (f"synthesize {WRITE} --model_name_or_path no/thing", "no model 'no/thing'"),
    ],
)
def test_a_mistake_is_said_before_heavy_imports(folder, arguments, complaint):
    code = (
        "import sys\nfrom boost_trl import cli\n"
        f"try: status = cli.main({arguments.split()!r})\n"
        "except SystemExit as stopped: status = stopped.code\n"
        "print(status, *sorted({'torch', 'transformers', 'accelerate', 'peft'} & set(sys.modules)))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.stdout == "2\n", done.stderr
    assert complaint in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("script", [offline_rl, sft_self_refine, dpo], ids=lambda script: script.__name__)
def test_the_names_that_are_read_from_sources_are_those_of_the_classes(script):
    from boost_trl import BilevelDPOConfig, BilevelOfflineRLConfig, BilevelSFTSelfRefineConfig

    configs = {offline_rl: BilevelOfflineRLConfig, sft_self_refine: BilevelSFTSelfRefineConfig, dpo: BilevelDPOConfig}
    config = configs[script]
    fields = {field.name for field in dataclasses.fields(config)}
    own = {field.name for types in OWN_TYPES[script] for field in dataclasses.fields(types)}
    read = early_checks._field_names(script.OTHER_OPTIONS)
    assert fields - own <= read and all(name.startswith("_") for name in read - fields)


@pytest.mark.parametrize(
    "script, needed", [(offline_rl, TRAIN), (sft_self_refine, SFT), (dpo, SFT), (compare, COMPARE)]
)
def test_no_option_of_the_parser_is_refused(folder, monkeypatch, script, needed):
    monkeypatch.chdir(folder)
    ours = {name for types in OWN_TYPES[script] for name in types.__dataclass_fields__}
    options = [name for action in script.make_parser()._actions for name in action.option_strings]
    foreign = [
        name for name in options if name[2:].replace("-", "_").removeprefix("no_") not in ours | {"help", "h", "model"}
    ]
    assert "--use-cpu" in foreign and "--no_average_tokens_across_devices" in foreign
    script.check_early([*needed.split(), *foreign], "test")


def test_a_source_that_has_moved_stops_nothing():
    assert early_checks._field_names({"transformers/nowhere.py": "TrainingArguments"}) is None
    assert early_checks._field_names({"transformers/training_args.py": "Nothing"}) is None


def test_evaluation_is_refused_only_where_there_are_no_rows_for_it():
    rl, sft = offline_rl.OfflineRLArguments, sft_self_refine.SFTSelfRefineScriptArguments
    rows = {"dataset_name": "rows.jsonl"}
    validated = {**rows, "validation_dataset_name": "rows.jsonl"}
    for options, method, strategy in (
        (validated, "boost", "no"),
        ({**validated, "eval_dataset_name": "rows.jsonl"}, "boost", "steps"),
        ({**validated, "dataset_test_split": "train"}, "boost", "steps"),
        ({**validated, "dataset_name": "hub/rows"}, "boost", "steps"),
        (rows, "boost", "steps"),  # the split by category holds rows out
        (rows, "vanilla", "steps"),
    ):
        offline_rl.check_evaluation_data(rl(**options), method, strategy)
    with pytest.raises(ValueError, match="has no split 'test'"):
        offline_rl.check_evaluation_data(rl(**rows, train_task_frac=1.0), "vanilla", "steps")
    mixture = DatasetMixtureConfig(datasets=[{"path": "hub/rows"}])
    halves = DatasetMixtureConfig(datasets=[{"path": "hub/rows"}], test_split_size=0.5)
    for options, data, strategy in (
        (rows, DatasetMixtureConfig(), "no"),
        ({**rows, "dataset_test_split": "train"}, DatasetMixtureConfig(), "steps"),
        ({"dataset_name": "hub/rows"}, DatasetMixtureConfig(), "steps"),
        ({}, mixture, "no"),
        ({}, halves, "steps"),
    ):
        sft_self_refine.check_evaluation_data(sft(**options), data, strategy)
    with pytest.raises(ValueError, match="`datasets` have no split 'test': set `test_split_size`"):
        sft_self_refine.check_evaluation_data(sft(), mixture, "steps")
