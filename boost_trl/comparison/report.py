"""A comparison as a table, a JSON file, pictures and a page that holds them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boost_trl.analysis.weights import distance_to_nearest, pearson, relative_weight_change
from boost_trl.comparison.run import MethodResult
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer


_MEANS = ("score_mean", "success_rate", "mean_turns", "effective_sample_size", "num_rows", "weights_auc", "seconds")
_MEANS += ("num_tokens", "eval_loss")


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean, 0 for one value."""
    return float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def aggregate(runs: Sequence[MethodResult]) -> list[dict[str, Any]]:
    """One object per method: means over worlds; `score_se` over worlds, or over games when there is one world.

    `beta` is the most frequent one, the smaller at a tie.
    """
    rows = []
    for name in dict.fromkeys(run.method for run in runs):
        group = [run for run in runs if run.method == name]
        row: dict[str, Any] = {"method": name, "label": group[0].label, "worlds": len(group)}
        for field in _MEANS:
            values = [value for run in group if (value := getattr(run, field)) is not None]
            row[field] = float(np.mean(values)) if values else None
        scores = [run.score_mean for run in group]
        row["score_se"] = standard_error(scores) if len(group) > 1 else group[0].score_se
        betas = sorted(run.beta for run in group)
        row["beta"] = max(betas, key=betas.count)
        rows.append(row)
    return rows


def paired_difference(runs: Sequence[MethodResult], method: str, control: str) -> tuple[float, float] | None:
    """Mean ± SE of (score of `method` − score of `control`), paired by world; for one world the SE is over games.

    `None` if one of them was not run.
    """
    ours, theirs = ([run for run in runs if run.method == name] for name in (method, control))
    if not ours or len(ours) != len(theirs):
        return None
    differences = [a.score_mean - b.score_mean for a, b in zip(ours, theirs)]
    if len(differences) == 1:
        return differences[0], float(np.hypot(ours[0].score_se, theirs[0].score_se))
    return float(np.mean(differences)), standard_error(differences)


def _cells(row: dict[str, Any]) -> list[str]:
    auc = row["weights_auc"]
    return [
        row["label"],
        f"{row['score_mean']:.2f} ± {row['score_se']:.2f}",
        f"{row['success_rate']:.0%}",
        f"{row['mean_turns']:.1f}",
        f"{row['effective_sample_size']:.0f} / {row['num_rows']:.0f}",
        "–" if auc is None else f"{auc:.2f}",
        f"{row['beta']:g}",
        f"{row['eval_loss']:.2f}",
        f"{row['num_tokens'] / 1e6:.2f}",
        f"{row['seconds']:.1f}",
    ]


HEADER = ["method", "score", "success", "turns", "n_eff / rows", "AUC", "β", "held-out loss", "M tokens", "seconds"]


def table_rows(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Header and cells, as text."""
    return [HEADER, *(_cells(row) for row in rows)]


def write_results(folder: Path, rows: Sequence[dict[str, Any]], runs: Sequence[Any]) -> None:
    """`results.json` (one object per method) and `runs.json` (`to_dict()` of every run)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(list(rows), indent=2) + "\n")
    (folder / "runs.json").write_text(json.dumps([run.to_dict() for run in runs], indent=2) + "\n")


def kinds_of_rows(trainer: BilevelOfflineRLTrainer) -> np.ndarray:
    """`offline`, the kind of planted noise, or `synthetic`, for every training row."""
    dataset = trainer.trajectories
    return np.array(
        [
            "synthetic" if source == "synthetic" else (kind or "noise") if is_noise else "offline"
            for source, is_noise, kind in zip(dataset["source"], dataset["is_noise"], dataset["noise_kind"])
        ]
    )


def draw_weights_by_kind(trainer: BilevelOfflineRLTrainer, path: Path) -> None:
    """Relative weight change of every training row, by source and kind of noise."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    change = relative_weight_change(trainer.example_weights()["weight"])
    kinds = kinds_of_rows(trainer)
    names = ["offline", *sorted({*kinds} - {"offline", "synthetic"}), "synthetic"]
    names = [name for name in names if (kinds == name).any()]
    figure, axes = plt.subplots(figsize=(1.5 + 1.6 * len(names), 4), layout="constrained")
    axes.violinplot([change[kinds == name] for name in names], showmedians=True, widths=0.8)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(1, len(names) + 1), [f"{name}\n({(kinds == name).sum()} rows)" for name in names])
    axes.set_ylabel("weight relative to uniform, $N\\tilde{w}_i - 1$")
    axes.set_title("Learned weights by kind of row")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_weight_against_distance(trainer: BilevelOfflineRLTrainer, path: Path) -> float | None:
    """Relative weight change of every synthetic row against its distance to the offline rows; returns Pearson's r."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    used = trainer.train_store.original_row
    change = relative_weight_change(trainer.example_weights()["weight"])[used]
    is_synthetic = (np.asarray(trainer.trajectories["source"]) == "synthetic")[used]
    embeddings = trainer.reweighter.embeddings.numpy()
    distance = distance_to_nearest(embeddings[is_synthetic], embeddings[~is_synthetic])
    correlation = pearson(distance, change[is_synthetic])
    figure, axes = plt.subplots(figsize=(5.5, 4), layout="constrained")
    axes.scatter(distance, change[is_synthetic], s=8, alpha=0.5)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("mean L1 distance to the 10 nearest offline rows")
    axes.set_ylabel("weight relative to uniform, $N\\tilde{w}_i - 1$")
    axes.set_title("Synthetic rows" + ("" if correlation is None else f" (r = {correlation:.2f})"))
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return correlation
