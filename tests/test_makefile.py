import subprocess
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("target", ["install", "demo", "test"])
def test_installing_says_what_each_step_takes_and_shows_pips_bar(tmp_path, target):
    command = ["make", "--dry-run", f"VENV={tmp_path / 'fresh'}", target]
    steps = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    said = [line for line in steps if line.startswith('echo "[')]
    assert len(said) == 3 and all("GB to load" in line for line in said[1:])
    pip = [line.split("||")[0].split() for line in steps if "pip install" in line]
    assert len(pip) == 2 and not any({"-q", "--quiet", "--progress-bar"} & set(words) for words in pip)
