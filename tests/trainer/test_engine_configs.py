"""Both trainers under `accelerate launch --config_file examples/accelerate_configs/….yaml` on two processes, against one
process on the same global batches. `benchmarks/engines.py` has the runs and the comparison."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml


ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
engines, engine_runs = importlib.import_module("engines"), importlib.import_module("engine_runs")

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("engines")


def assert_as_one_process(records, engine):
    for record in records:
        where = record["engine"], record["cell"], record["accumulation"]
        assert record["distributed_type"] == engine.distributed_type, where
        assert record["num_processes"] == (1 if engine.config is None else 2), where
        assert record["mixed_precision"] == ("bf16" if "--bf16" in engine.options else "no"), where
        has_phases = record["cell"].startswith("rl") and record["cell"] != "rl_validated"
        assert record["frozen_moved"] is False and (record["frozen_checked"] > 0) is has_phases, where
        assert record["sharded_share"] == (1 if engine.config in ("zero3", "fsdp2") else 0), where
        if record["engine"] == "compile":
            first, *later = record["graphs"]
            assert first > 0 and set(later) == {first}, where  # nothing is compiled again after the first epoch
        for measure in engine.measures:
            # Single biases of φ have no gradient but rounding, of which Adam makes full steps; no weight depends on them.
            tolerance = max(engine.tolerance, 1e-3) if measure == "reweighting_head" else engine.tolerance
            assert record.get(measure, 0) <= tolerance, (where, measure)


def test_two_processes_under_fsdp2_train_what_one_does(folder, monkeypatch):
    """In brief; DDP has tests of its own for each trainer."""
    engine = engines.Engine("fsdp2", "FSDP", ["rl_ilql"])
    monkeypatch.setenv("BOOST_TRL_CACHE", str(folder / "cache"))
    engine_runs.run("rl_ilql", folder / "one" / "rl_ilql-1", use_cpu=True, bf16=False)
    records = engines.compare("fsdp2", engine, folder)
    assert [{"losses", "weights", "parameters"} <= record.keys() for record in records] == [True]
    assert_as_one_process(records, engine)


@pytest.fixture(scope="module")
def reference(folder):
    engines.launch(None, folder / "all" / "one", engines.EVERYTHING)
    return folder / "all"


@pytest.mark.slow
@pytest.mark.parametrize("name", engines.ENGINES)
def test_every_engine_trains_what_one_process_does(name, reference):
    engine = engines.ENGINES[name]
    assert_as_one_process(engines.compare(name, engine, reference), engine)


def test_there_is_a_run_for_every_config():
    """And what it says is the type that results, but for DDP on CPUs."""
    configs = {path.stem: yaml.safe_load(path.read_text()) for path in engines.CONFIGS.glob("*.yaml")}
    assert configs.keys() == {engine.config for engine in engines.ENGINES.values() if engine.config}
    for engine in (engine for engine in engines.ENGINES.values() if engine.config):
        expected = engine.distributed_type.replace("MULTI_CPU", "MULTI_GPU")
        assert configs[engine.config]["distributed_type"] == expected


def test_the_page_shows_what_was_measured():
    page = (ROOT / "docs" / "distributed.md").read_text()
    records = json.loads((ROOT / "docs" / "data" / "engines.json").read_text())["runs"]
    assert {record["engine"] for record in records} == set(engines.ENGINES)
    assert engines.summary(records) in page
