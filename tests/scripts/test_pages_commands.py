"""Every `boost-trl` command of the pages and of the configs' comments has all that its parser asks for, and nothing else."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

from boost_trl import cli


ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "examples" / "configs").glob("*.yaml"))
NAMES = "|".join(cli.COMMANDS)


def commands_of(path):
    text = re.sub(r"^# ?", "", path.read_text(), flags=re.MULTILINE) if path in CONFIGS else path.read_text()
    joined = text.replace("\\\n", " ")
    found = re.findall(
        rf"^ *(?:boost-trl|accelerate launch .*-m boost_trl\.cli) ((?:{NAMES}) [^`]*?)$", joined, flags=re.MULTILINE
    )
    return [shlex.split(command, comments=True) for command in found]


COMMANDS = [
    pytest.param(command, id=f"{path.stem}-{number}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *CONFIGS]
    for number, command in enumerate(commands_of(path))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_its_options_exist_and_suffice(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    name, *options = command
    trains = ["--use_cpu", "true", "--bf16", "false"] if name in ("offline-rl", "sft-self-refine") else []
    import_module(cli.COMMANDS[name][0]).make_parser().parse_args_and_config([*options, *trains])


def test_they_are_found():
    assert len(COMMANDS) >= 4 + 4 + 6  # README's, the pages', the papers' configs'
