"""
Does every engine train what one process does? Runs both trainers under each config of `examples/accelerate_configs` through
`accelerate launch`, and in one process on the same global batches, and prints the largest differences between what was logged
and saved.

    OMP_NUM_THREADS=1 python benchmarks/engines.py --output docs/data/engines.json

Some 20 CPU minutes. FSDP2, which Accelerate leaves out on CPUs, runs there with the Accelerate of the test processes told
that they are GPUs (`engine_runs.py`); everything after that is Accelerate's and PyTorch's own.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file

from boost_trl.tables import markdown_table, number


COMMAND = "OMP_NUM_THREADS=1 python benchmarks/engines.py --output docs/data/engines.json"
ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "examples" / "accelerate_configs"
RUNS = Path(__file__).with_name("engine_runs.py")
EVERYTHING = ["rl_mc", "rl_mc_lora", "rl_ilql", "rl_ilql_lora", "rl_validated"]
EVERYTHING += ["sft_bds", "sft_bds_lora", "sft_validated", "sft_online"]
# What differs: losses, weights of the rows, ω (SFT) or w_φ (RL), the model and its value heads.
MEASURES = ("losses", "weights", "selector", "reweighting_head", "parameters")
REWEIGHTING, SELECTOR = "reweighting_head.safetensors", "selector.safetensors"


@dataclass
class Engine:
    """A row of the table.

    Args:
        config (`str`, *optional*): of two processes; without one it is a single process.
        distributed_type (`str`): that results.
        cells (`list[str]`): of `engine_runs.CELLS`.
        tolerance (`float`): the largest difference from one plain process that counts as none.
        measures (`tuple[str]`, *optional*): what is compared.
        accumulation (`tuple[int]`, *optional*): steps of gradient accumulation.
        options (`list[str]`, *optional*): of `engine_runs.py`.
    """

    config: str | None
    distributed_type: str
    cells: list[str]
    tolerance: float = 1e-5
    measures: tuple[str, ...] = MEASURES
    accumulation: tuple[int, ...] = (1,)
    options: tuple[str, ...] = ()


def _zero(stage: int, bf16: bool) -> Engine:
    options = {"options": ("--bf16",), "tolerance": 5e-2} if bf16 else {}
    return Engine(f"zero{stage}", "DEEPSPEED", EVERYTHING, **options)


# Recompilations do not depend on who compiles, which takes minutes on a CPU.
COMPILED = '{"torch_compile": true, "torch_compile_backend": "aot_eager"}'
ENGINES = {
    "ddp": Engine("ddp", "MULTI_CPU", EVERYTHING, accumulation=(1, 2, 4)),
    **{f"zero{stage}{'_bf16' * bf16}": _zero(stage, bf16) for bf16 in (False, True) for stage in (1, 2, 3)},
    "fsdp2": Engine("fsdp2", "FSDP", EVERYTHING),
    "fsdp2_bf16": Engine("fsdp2", "FSDP", ["rl_mc", "rl_ilql_lora", "sft_bds"], 5e-2, options=("--bf16",)),
    "fsdp2_resumed": Engine("fsdp2", "FSDP", ["rl_ilql", "rl_mc_lora", "sft_bds"], options=("--resume_at", "3")),
    "checkpointing": Engine(
        None, "NO", ["rl_mc", "rl_ilql_lora", "sft_bds"], options=("--options", '{"gradient_checkpointing": true}')
    ),
    "bf16": Engine(None, "NO", ["rl_mc", "rl_ilql", "sft_bds"], tolerance=5e-2, options=("--bf16",)),
    "nf4": Engine(
        None, "NO", ["rl_mc_lora", "rl_ilql_lora", "sft_bds_lora"], 5e-2, measures=("losses",), options=("--nf4",)
    ),
    "compile": Engine(None, "NO", ["rl_mc", "rl_ilql", "sft_bds"], options=("--options", COMPILED)),
}


def launch(config: str | None, folder: Path, cells: list[str], *options: str, num_processes: int = 2) -> None:
    """Train `cells` under `examples/accelerate_configs/{config}.yaml`, or in one process without a config."""
    command = [sys.executable]
    if config is not None:
        command += ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{config}.yaml")]
        command += ["--num_processes", str(num_processes), "--main_process_port", "0"]
        command += ["--mixed_precision", "bf16" if "--bf16" in options else "no", "--dynamo_backend", "no"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    environment["BOOST_TRL_CACHE"] = str(folder / "cache")
    command += [str(RUNS), str(folder), *cells, "--use_cpu", *options]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{result.stdout[-3000:]}\n{result.stderr[-6000:]}")


def saved(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """All numbers that a run logged and saved, by measure."""
    values = json.loads((folder / "engine_run.json").read_text())
    found = {name: {name: torch.tensor(values[name], dtype=torch.float64)} for name in ("losses", "weights")}
    for path in sorted(folder.glob("**/*.safetensors")):
        measure = {REWEIGHTING: "reweighting_head", SELECTOR: "selector"}.get(path.name, "parameters")
        tensors = load_file(path)
        tensors.pop("lm_head.weight", None)  # the embedding again, which engines' state dicts have twice
        found.setdefault(measure, {}).update({f"{path.relative_to(folder)}:{k}": v for k, v in tensors.items()})
    return found


def differences(folder: Path, reference: Path, measures: tuple[str, ...] = MEASURES) -> dict[str, float]:
    """By measure, the largest difference between two runs; relative to the largest value where that is above 1.

    Raises:
        ValueError: if one run has saved something that the other has not, or in another shape.
    """
    mine, yours = saved(folder), saved(reference)
    largest = {}
    for measure in measures:
        one, other = mine.get(measure, {}), yours.get(measure, {})
        if {name: t.shape for name, t in one.items()} != {name: t.shape for name, t in other.items()}:
            raise ValueError(f"{folder} and {reference} have saved different {measure}")
        if one:
            largest[measure] = max(_difference(one[name], other[name]) for name in one)
    return largest


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.double(), other.double()
    return float((one - other).abs().max() / other.abs().max().clamp(min=1))


def compare(name: str, engine: Engine, folder: Path, cells: list[str] | None = None) -> list[dict]:
    """Run an engine and compare with the reference in `folder/one`; one record per cell and accumulation."""
    cells = [cell for cell in engine.cells if cells is None or cell in cells]
    if not cells:
        return []
    launch(engine.config, folder / name, cells, "--accumulation", *map(str, engine.accumulation), *engine.options)
    records = []
    for steps in engine.accumulation:
        for cell in cells:
            run = folder / name / f"{cell}-{steps}"
            values = json.loads((run / "engine_run.json").read_text())
            values = {key: value for key, value in values.items() if key not in MEASURES}
            found = differences(run, folder / "one" / f"{cell}-1", engine.measures)
            records.append({"engine": name, "cell": cell, "accumulation": steps, **values, **found})
    return records


def summary(records: list[dict]) -> str:
    """One line per engine, as Markdown: the largest difference of every measure over its runs."""
    rows = []
    for name in dict.fromkeys(record["engine"] for record in records):
        mine = [record for record in records if record["engine"] == name]
        largest = [max((r[m] for r in mine if m in r), default=None) for m in MEASURES]
        settings = sorted({record["cell"] for record in mine}, key=EVERYTHING.index)
        what = "all" if settings == EVERYTHING else ", ".join(settings)
        steps = ", ".join(str(step) for step in ENGINES[name].accumulation)
        first = [f"`{name}`", mine[0]["distributed_type"], str(mine[0]["num_processes"]), steps, what]
        rows.append([*first, *(number(value, ".0e") for value in largest)])
    names = ["", "`distributed_type`", "processes", "accumulation", "settings", *MEASURES]
    return markdown_table([names, *rows], "lllll" + "r" * len(MEASURES))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="Default: all")
    parser.add_argument("--cells", nargs="+", choices=EVERYTHING, default=EVERYTHING, help="Default: all")
    parser.add_argument("--output", type=Path, help="JSON file for the records, in which those of other engines stay")
    options = parser.parse_args()
    records = []
    with TemporaryDirectory() as folder:
        launch(None, Path(folder, "one"), options.cells)
        for name in options.engines:
            records += compare(name, ENGINES[name], Path(folder), options.cells)
            print(summary(records), flush=True)
            if options.output is not None:
                _write(options.output, records)


def _write(path: Path, records: list[dict]) -> None:
    """Put the records in the place of earlier ones of the same engines."""
    earlier = json.loads(path.read_text())["runs"] if path.exists() else []
    mine = {record["engine"] for record in records}
    runs = [record for record in earlier if record["engine"] not in mine] + records
    runs.sort(key=lambda record: list(ENGINES).index(record["engine"]))
    path.write_text(json.dumps({"command": COMMAND, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
