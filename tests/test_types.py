"""The package is clean to a type checker, with the settings of `pyproject.toml`, and tells it what its public names are."""

import subprocess
import sys
from pathlib import Path

import pytest


pytest.importorskip("mypy")


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """What a type checker says of some files, or of the package."""
    cache = tmp_path_factory.mktemp("cache")

    def run(*files):
        command = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), *map(str, files)]
        return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)

    return run


def test_types_are_right(check):
    done = check()
    assert done.returncode == 0, done.stdout + done.stderr


def test_users_are_told_of_wrong_names_and_arguments(check, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from boost_trl import ValueHeads, ValueHead\n\nheads = ValueHeads('mc')\nheads.q_logits(1, 2)\n"
    )
    said = check(script).stdout.splitlines()
    assert len(said) == 4, said
    assert 'Module "boost_trl" has no attribute "ValueHead"' in said[0]
    assert 'Argument 1 to "ValueHeads" has incompatible type "str"; expected "ValueHeadsConfig"' in said[1]
    assert 'Argument 2 to "q_logits" of "ValueHeads" has incompatible type "int"; expected "str"' in said[2]
