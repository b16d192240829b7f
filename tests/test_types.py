"""The package is clean to a type checker, with the settings of `pyproject.toml`."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_types_are_right(tmp_path):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
