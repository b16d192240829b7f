"""
README's picture: rows of a pool with their learned weights, and the loss beside that of simpler ways of training. Run

    python examples/readme_picture.py

for `docs/images/readme.png`, from committed data: the study of six seeds and the weights of one run, those of

    python examples/sft_self_refine.py --config examples/configs/sft_contradiction_pretrained.yaml --methods validated --seeds 21
    python examples/readme_picture.py --run outputs/sft_pretrained/runs/validated-21 --seed 21
"""

import argparse
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from boost_trl.comparison.results import standard_error
from boost_trl.pictures import figure


DOCS = Path(__file__).parents[1] / "docs"
WEIGHTS, STUDY = DOCS / "data" / "readme_weights.json", DOCS / "data" / "sft_pretrained_study.json"
GOOD, BAD, PLAIN, TEXT = "#0969da", "#d4761a", "#8c959f", "#1f2328"
BAD_SHARE = 0.6
METHODS = {
    "mixing_eight": "equal weights",
    "two_stage": "pool, then\ntrusted rows",
    "validated": "learned weights",
    "known_good_mixed": "if one knew the\ngood rows",
}
# Right and wrong rows that are shown, drawn by the seed.
SHOWN = {True: 2, False: 4}


def save_weights(run: Path, seed: int) -> None:
    """Keep the final weights of a run, the kind of each row, and the text of some."""
    from boost_trl.analysis.run_files import epoch_weights
    from boost_trl.comparison.sft.contradiction_pool import contradiction_pool

    pool, rng = contradiction_pool(seed, bad_share=BAD_SHARE).pool, Random(seed)
    of_kind = [[row for row, good in enumerate(pool["is_good"]) if good == kind] for kind in SHOWN]
    shown = sorted(row for rows, count in zip(of_kind, SHOWN.values()) for row in rng.sample(rows, count))
    kept = {
        "seed": seed,
        "good": pool["is_good"][:],
        "weight": [round(float(weight), 3) for weight in epoch_weights(run)[-1]],
        "shown": {str(row): pool.select_columns(["prompt", "completion"])[row] for row in shown},
    }
    WEIGHTS.write_text(json.dumps(kept) + "\n")


def draw_rows(axes: Any, kept: dict[str, Any]) -> None:
    """Rows of the pool as text, with their weights."""
    axes.set_title("1. A pool that you do not trust", loc="left", fontsize=11)
    for place, (number, row) in enumerate(kept["shown"].items()):
        colour, mark = (GOOD, "✓") if kept["good"][int(number)] else (BAD, "✗")
        task, words = row["prompt"].split(" : ")
        axes.text(0, -place + 0.16, f"{task.capitalize()}: {words}", fontsize=7.5, color=TEXT)
        axes.text(
            0.03, -place - 0.22, f"{mark} {row['completion'].strip()}", fontsize=8.5, color=colour, weight="bold"
        )
        weight = f"counts {kept['weight'][int(number)]:.2f}×"
        axes.text(0.98, -place - 0.22, weight, fontsize=8.5, color=colour, ha="right")
    axes.text(
        0, -len(kept["shown"]) + 0.05, "… 2,400 rows, 60 % of them wrong; 48 rows to trust", fontsize=8, color=TEXT
    )
    axes.set(xlim=(0, 1), ylim=(-len(kept["shown"]) - 0.1, 0.6))
    axes.axis("off")


def draw_weights(axes: Any, kept: dict[str, Any]) -> None:
    """How many rows of each kind have which weight."""
    weights, good = np.array(kept["weight"]), np.array(kept["good"])
    bins = np.geomspace(1e-3, 100, 31)
    for mask, colour, label in ((~good, BAD, "wrong answers"), (good, GOOD, "right answers")):
        axes.hist(weights[mask].clip(bins[0]), bins, color=colour, alpha=0.75, label=label)
    axes.axvline(1, color=TEXT, linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.set_xticks([1e-3, 1e-2, 0.1, 1, 10, 100], ["≤ .001", ".01", ".1", "1", "10", "100"])
    axes.minorticks_off()
    axes.set(xlabel="weight of a row (1: as in plain training)", ylabel="rows")
    axes.set_title("2. Training learns what counts", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=8)


def draw_losses(axes: Any, study: list[dict[str, Any]]) -> None:
    """Mean ± standard error of the loss of each way of training."""
    for place, method in enumerate(METHODS):
        losses = [run["eval_loss"] for run in study if (run["method"], run["bad_share"]) == (method, BAD_SHARE)]
        colour = GOOD if method == "validated" else PLAIN
        axes.barh(-place, np.mean(losses), xerr=standard_error(losses), color=colour, height=0.62, capsize=3)
        axes.text(
            np.mean(losses) + standard_error(losses) + 0.015, -place, f"{np.mean(losses):.2f}", va="center", fontsize=9
        )
    axes.set_yticks(range(0, -len(METHODS), -1), METHODS.values(), fontsize=8.5)
    axes.set(xlim=(0, 1.05), xlabel="loss on rows that nothing trained on")
    axes.set_title("3. The model does what you meant", loc="left", fontsize=11)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--run", type=Path, help="Folder of a run, whose weights replace the committed ones.")
    parser.add_argument("--seed", type=int, default=21, help="Its seed.")
    arguments = parser.parse_args()
    if arguments.run is not None:
        save_weights(arguments.run, arguments.seed)
    kept, study = json.loads(WEIGHTS.read_text()), json.loads(STUDY.read_text())
    with figure(DOCS / "images" / "readme.png", 1, 3, figsize=(11, 3.3), width_ratios=[1.05, 1, 1]) as (_, axes):
        draw_rows(axes[0], kept)
        draw_weights(axes[1], kept)
        draw_losses(axes[2], study)
        for each in axes[1:]:
            each.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
