"""
All performance figures of `docs/performance.md` by one command: each measure beside what it is compared with, in turns, in one process.

    python benchmarks/run.py
    python benchmarks/run.py --only startup sft.online

The figures go to `docs/data/performance.json` (those of other measures stay) and as a table into `docs/performance.md`. Ratios are of
CPU seconds on one core, so that other programs on the machine hardly change them; each is the median over rounds.
"""

import argparse
import dataclasses
import json
import os
import platform
import re
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path


ROOT = Path(__file__).parents[1]
JSON, PAGE = ROOT / "docs/data/performance.json", ROOT / "docs/performance.md"
BEGIN, END = "<!-- written by benchmarks/run.py -->\n", "<!-- until here -->"
# Minutes of one core, by file of this folder and function in it, `measure` by default, in the order of the table.
MEASURES = {
    "startup": 0.1,
    "sft.per_token": 1.5,
    "sft.online": 1,
    "sft.whole_run": 2.5,
    "rl.scoring": 4,
    "head_losses": 2,
    "rl.smollm2_steps": 4,
    "rl.phases": 0.5,
    "games": 0.5,
    "preparation.preparing": 2,
    "preparation.starting": 5,
    "memory_growth": 1,
}
HEADER = ["measure", "against", "at most", "measured", "rounds", "wall clock"]


def measured(name: str) -> list[dict]:
    """Rows of one measure."""
    from side_by_side import in_new_process

    return [dataclasses.asdict(row) for row in in_new_process(_measure, name)]


def _measure(name: str) -> list:
    file, _, function = name.partition(".")
    return getattr(import_module(file), function or "measure")()


def table(results: dict[str, list[dict]]) -> str:
    from boost_trl.tables import markdown_table

    rows = [row for name in MEASURES for row in results.get(name, [])]
    return markdown_table([HEADER, *map(cells, rows)], "llrrrr")


def cells(row: dict) -> list[str]:
    def shown(value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:.2f} {row['unit']}" if row["unit"] in ("×", "s") else f"{value:,.0f} {row['unit']}"

    is_met = row["at_most"] is None or row["value"] <= row["at_most"]
    spread = "–" if row["lowest"] is None else f"{row['lowest']:.2f} to {row['highest']:.2f}"
    value = shown(row["value"]) if is_met else f"**{shown(row['value'])}**"
    return [row["measure"], row["against"] or "–", shown(row["at_most"]), value, spread, shown(row["wall"])]


def write(results: dict[str, list[dict]]) -> None:
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "boost_trl")}
    JSON.write_text(json.dumps({"made_with": machine | versions, "results": results}, indent=1) + "\n")
    inside = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    PAGE.write_text(inside.sub(lambda _: f"{BEGIN}\n{table(results)}\n\n{END}", PAGE.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES), help="measures to run")
    args = parser.parse_args()
    # Of the processes that measure.
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    results = json.loads(JSON.read_text())["results"] if JSON.exists() else {}
    print(f"about {sum(map(MEASURES.get, args.only)):.0f} minutes of one core", file=sys.stderr)
    for number, name in enumerate(args.only, 1):
        print(f"[{number}/{len(args.only)}] {name}, about {MEASURES[name]:g} min", file=sys.stderr)
        start = time.perf_counter()
        results[name] = measured(name)
        print(table({name: results[name]}), f"\n{time.perf_counter() - start:.0f} s\n", flush=True)
        write(results)


if __name__ == "__main__":
    main()
