"""Every command of the pages, of the configs' comments and of the scripts' own first lines has all that its parser asks for, and
nothing else."""

import argparse
import logging
import re
import runpy
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
from trl import TrlParser

from boost_trl import cli


ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "examples" / "configs").glob("*.yaml"))
SCRIPTS = sorted([*(ROOT / "examples").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")])
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = "|".join(cli.COMMANDS)
OURS = rf"(?:boost-trl|accelerate launch .*-m boost_trl\.cli) ((?:{NAMES})(?: [^`]*?)?)"
THEIRS = r"(?:\.venv/bin/)?(?:python|accelerate launch[^`\n]*?) ((?:examples|benchmarks)/\w+\.py(?: [^`]*?)?)"


def commands_of(path, pattern):
    text = path.read_text()
    if path in CONFIGS:
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    lines = text.replace("\\\n", " ")
    found = re.findall(rf"^ *(?:\w+=\S+ )*{pattern}$", lines, flags=re.MULTILINE)
    return [shlex.split(command, comments=True) for command in found if "--help" not in command]


def commands(pattern, paths):
    return [
        pytest.param(command, id=f"{path.stem}-{number}")
        for path in paths
        for number, command in enumerate(commands_of(path, pattern))
    ]


OF_PACKAGE = commands(OURS, [*PAGES, *CONFIGS])
OF_SCRIPTS = commands(THEIRS, [*PAGES, *CONFIGS, *SCRIPTS])


@pytest.mark.parametrize("command", OF_PACKAGE)
def test_its_options_exist_and_suffice(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    name, *options = command
    trains = ["--use_cpu", "true", "--bf16", "false"] if name in ("offline-rl", "sft-self-refine", "dpo") else []
    import_module(cli.COMMANDS[name][0]).make_parser().parse_args_and_config([*options, *trains])


class Parsed(Exception):
    pass


@pytest.mark.parametrize("command", OF_SCRIPTS)
def test_options_of_a_script_exist_and_suffice(command, monkeypatch):
    script, *options = command

    def stop_after(parse):
        def parsed(*args, **kwargs):
            raise Parsed(parse(*args, **kwargs))

        return parsed

    for parser, name in ((TrlParser, "parse_args_and_config"), (argparse.ArgumentParser, "parse_args")):
        monkeypatch.setattr(parser, name, stop_after(getattr(parser, name)))
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str((ROOT / script).parent))
    trains = ["--use_cpu", "true", "--bf16", "false"] if "--config" in options else []
    monkeypatch.setattr(sys, "argv", [script, *options, *trains])
    level = logging.getLogger("boost_trl").level
    try:
        with pytest.raises(Parsed):
            runpy.run_path(script, run_name="__main__")
    finally:
        logging.getLogger("boost_trl").setLevel(level)  # scripts are silent, tests that follow are not


def test_they_are_found():
    assert len(OF_PACKAGE) >= 6 + 4 + 6  # README's, the pages', the papers' configs'
    assert {Path(parameter.values[0][0]).name for parameter in OF_SCRIPTS} >= {
        script.name for script in SCRIPTS if "__main__" in script.read_text()
    }
