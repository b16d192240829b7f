"""What every command's parser adds to TRL's: help in two lengths, former names, errors of one line."""

import dataclasses
import subprocess
import sys
import warnings

import pytest
import yaml
from trl import ModelConfig

from boost_trl import cli
from boost_trl.scripts import dpo, sft_self_refine
from boost_trl.scripts.analyze import AnalyzeArguments
from boost_trl.scripts.command_parser import CommandParser
from boost_trl.scripts.compare import CompareArguments
from boost_trl.scripts.offline_rl import OfflineRLArguments
from boost_trl.scripts.rollout import RolloutArguments
from boost_trl.scripts.synthesize import SynthesizeArguments
from boost_trl.trainer.offline_rl.settings import OfflineRLSettings


@dataclasses.dataclass
class Options:
    rows: str = dataclasses.field(metadata={"help": "Which rows."})
    many_rows: bool = dataclasses.field(default=True, metadata={"help": "Whether there are many."})
    share: float | None = dataclasses.field(default=None, metadata={"help": "How many."})

    _former_names = {"lines": "rows"}


def parse(*arguments, **options):
    return CommandParser((Options,), "test", **options).parse_args_and_config(arguments)


def options_in(text):
    return [line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  --")]


def test_former_names_work_and_warn(tmp_path):
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({"lines": "b", "share": 0.5}))
    for arguments, rows in (
        (["--lines", "a"], "a"),
        (["--lines=a"], "a"),
        (["--config", str(tmp_path / "old.yaml")], "b"),
        (["--config", str(tmp_path / "old.yaml"), "--rows", "c"], "c"),
    ):
        with pytest.warns(FutureWarning, match="`lines` is now called `rows`"):
            assert parse(*arguments)[0].rows == rows


@pytest.mark.parametrize("arguments", [["--lines", "a", "--rows", "b"], ["--rows", "b", "--lines=a"]])
def test_both_names_are_refused(arguments):
    with pytest.raises(ValueError, match="`lines` is the former name of `rows`, and both are given; keep the second"):
        parse(*arguments)


@pytest.mark.parametrize(
    "kind", [AnalyzeArguments, CompareArguments, OfflineRLArguments, RolloutArguments, SynthesizeArguments]
)
def test_former_names_are_those_of_options_that_exist(kind):
    names = {field.name for field in dataclasses.fields(kind)}
    assert kind._former_names and set(kind._former_names.values()) <= names and not names & kind._former_names.keys()


def test_present_names_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (options,) = parse("--rows", "lines", "--no-many-rows")
    assert options == Options("lines", many_rows=False)


def test_a_parser_that_is_told_so_takes_former_names_without_a_warning(tmp_path):
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({"lines": "b"}))
    parser = CommandParser((Options,))
    parser.warns_of_former_names = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for arguments, rows in ((["--lines", "a"], "a"), (["--config", str(tmp_path / "old.yaml")], "b")):
            assert parser.parse_args_and_config(arguments)[0].rows == rows


def test_each_former_name_warns_once_on_a_command_line():
    code = "import sys; from boost_trl.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = ["compare", "--train_path", "nowhere.jsonl", "--validation_path", "nowhere.jsonl"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("FutureWarning: `") == 2
    assert "no dataset 'nowhere.jsonl'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        ([], "the following arguments are required: --rows;"),
        (["--rows", "a", "--share", "much"], "argument --share: invalid"),
    ],
)
def test_errors_are_one_line(capsys, arguments, complaint):
    with pytest.raises(SystemExit) as stopped:
        parse(*arguments)
    assert stopped.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"test: {complaint}") and said.endswith("`test --help` lists the options")


@pytest.mark.parametrize(
    "wrong, hint",
    [("--shrae", "did you mean `--share`?"), ("--many", "did you mean `--many_rows`?"), ("--zzz", "`--help` lists")],
)
def test_an_option_that_does_not_exist_is_named(tmp_path, wrong, hint):
    with pytest.raises(ValueError, match=f"there is no option `{wrong}`") as refused:
        parse("--rows", "a", f"{wrong}=1")
    assert hint in str(refused.value)
    (tmp_path / "new.yaml").write_text(f"rows: a\n{wrong[2:]}: 1\n")
    with pytest.raises(ValueError, match=f"there is no option `{wrong}`"):
        parse("--config", str(tmp_path / "new.yaml"))
    with pytest.raises(ValueError, match="'more' belongs to no option"):
        parse("--rows", "a", "more")


def test_help_shows_one_spelling_the_type_and_no_empty_default():
    shown = CommandParser((Options,), "test").format_help()
    assert shown.startswith("usage: test --rows ROWS [--config FILE.yaml] [OPTIONS]\n")
    assert "--many_rows [BOOL]" in shown and "--share FLOAT" in shown and "--rows TEXT" in shown
    assert "--many-rows" not in shown and "None" not in shown and "(default: True)" in shown
    assert parse("--rows", "a", "--many-rows", "false")[0] == Options("a", many_rows=False)


@pytest.mark.parametrize("command", ["offline-rl", "sft-self-refine", "dpo", "compare"])
def test_help_of_training_has_own_options_first_and_all_only_if_asked(command, capsys):
    assert cli.main([command, "--help"]) == 0
    short = capsys.readouterr().out
    assert cli.main([command, "--help-all"]) == 0
    everything = capsys.readouterr().out
    own, every = options_in(short), options_in(everything)
    assert every[: len(own)] == own and len(every) == len(set(every)) > len(own) + 100
    assert "--dataset_name" in own and "--lora_r" in own and "--push_to_hub" not in own
    assert {"--push_to_hub", "--output_dir", "--warmup_steps"} <= set(every)
    assert f"`boost-trl {command} --help-all` adds all options of training" in " ".join(short.split())


def test_all_help_of_compare_has_the_options_of_either_kind_of_rows(capsys):
    assert cli.main(["compare", "--help-all"]) == 0
    assert {"--rho_init", "--algorithm", "--packing"} <= set(options_in(capsys.readouterr().out))


@pytest.mark.parametrize("script", [dpo, sft_self_refine], ids=lambda script: script.__name__)
@pytest.mark.parametrize("is_there, expected", [(False, False), (True, None)])
def test_bf16_is_left_to_trl_where_the_machine_has_it(monkeypatch, script, is_there, expected):
    monkeypatch.setattr("transformers.utils.is_torch_bf16_gpu_available", lambda: is_there)
    assert script.make_parser().get_default("bf16") is expected


def test_help_of_offline_rl_lists_what_is_ours_with_its_choices(capsys):
    cli.main(["offline-rl", "--help"])
    printed = capsys.readouterr().out
    expected = [field.name for kind in (OfflineRLArguments, OfflineRLSettings, ModelConfig) for field in dataclasses.fields(kind)]  # fmt: skip
    assert {f"--{name}" for name in expected} <= set(options_in(printed))
    assert "--algorithm {mc,ilql}" in printed and "--method {boost,validated,vanilla}" in printed
    dropout = " ".join(printed.split("--lora_dropout")[1].split()[:5])
    assert dropout == "FLOAT LoRA dropout. (default: 0.0)"


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_help_loads_no_torch(command):
    code = (
        "import sys; from boost_trl.cli import main; status = main([sys.argv[1], '--help']); "
        "sys.exit(status or 'torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, command], stdout=subprocess.DEVNULL).returncode == 0
