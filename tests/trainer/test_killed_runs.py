"""Runs that are killed again and again, in saves, updates and generation, end as the uninterrupted one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


# 20 kills in all.
RUNS = {("sft", 1): 6, ("offline_rl", 1): 6, ("sft", 2): 4, ("offline_rl", 2): 4}


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("kind", "num_processes"), RUNS)
def test_killed_runs_end_as_uninterrupted_ones(kind, num_processes, tmp_path):
    script = Path(__file__).with_name("killed_runs.py")
    arguments = [str(tmp_path), kind, str(num_processes), str(RUNS[kind, num_processes]), "0"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(script), *arguments], check=True, env=environment, timeout=1800)
    found = json.loads((tmp_path / "result.json").read_text())
    results = found["results"]
    straight = results.pop("straight")
    assert straight["steps"] == 8 and len(straight["losses"]) == 8
    assert results.pop("killed") == straight, found["events"]
    if "moved" in results:
        assert results.pop("moved") == straight
    for name, other in results.items():
        for mine, yours in zip(other["parameters"], straight["parameters"], strict=True):
            np.testing.assert_allclose(mine, yours, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(other["weights"], straight["weights"], atol=1e-4, err_msg=name)
        np.testing.assert_allclose(other["losses"], straight["losses"], rtol=1e-5, err_msg=name)
    print(kind, num_processes, found["events"])
