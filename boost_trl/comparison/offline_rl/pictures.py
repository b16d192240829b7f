"""Pictures of the weights that an offline RL method ended with."""

from pathlib import Path

import numpy as np
from datasets import Dataset

from boost_trl.analysis.weights import distance_to_nearest, pearson, relative_weight_change
from boost_trl.comparison.pictures import figure


PICTURES = ("weights_by_kind.png", "weight_against_distance.png")


def kinds_of_rows(rows: Dataset) -> np.ndarray:
    """`offline`, the kind of planted noise, or `synthetic`, for every training row."""
    return np.array(
        [
            "synthetic" if source == "synthetic" else (kind or "noise") if is_noise else "offline"
            for source, is_noise, kind in zip(rows["source"], rows["is_noise"], rows["noise_kind"])
        ]
    )


def draw_weights_by_kind(rows: Dataset, weights: Dataset, path: Path) -> None:
    """Relative weight change of every training row, by source and kind of noise.

    Args:
        rows (`Dataset`): training rows.
        weights (`Dataset`): their [`~BilevelOfflineRLTrainer.example_weights`].
        path (`Path`): of the picture.
    """
    change, kinds = relative_weight_change(weights["weight"]), kinds_of_rows(rows)
    names = ["offline", *sorted({*kinds} - {"offline", "synthetic"}), "synthetic"]
    names = [name for name in names if (kinds == name).any()]
    with figure(path, figsize=(1.5 + 1.6 * len(names), 4)) as (_, axes):
        axes.violinplot([change[kinds == name] for name in names], showmedians=True, widths=0.8)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(1, len(names) + 1), [f"{name}\n({(kinds == name).sum()} rows)" for name in names])
        axes.set_ylabel("weight relative to uniform, $N\\tilde{w}_i - 1$")
        axes.set_title("Learned weights by kind of row")


def draw_weight_against_distance(weights: Dataset, embeddings: np.ndarray, path: Path) -> float | None:
    """Relative weight change of every synthetic row against its distance to the offline rows; returns Pearson's r.

    Args:
        weights (`Dataset`): [`~BilevelOfflineRLTrainer.example_weights`].
        embeddings (`np.ndarray` of shape `(N, d)`): of the rows among them that are used.
        path (`Path`): of the picture.
    """
    used = np.array([score is not None for score in weights["score"]])
    change = relative_weight_change(weights["weight"])[used]
    is_synthetic = (np.asarray(weights["source"]) == "synthetic")[used]
    distance = distance_to_nearest(embeddings[is_synthetic], embeddings[~is_synthetic])
    correlation = pearson(distance, change[is_synthetic])
    with figure(path, figsize=(5.5, 4)) as (_, axes):
        axes.scatter(distance, change[is_synthetic], s=8, alpha=0.5)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xlabel("mean L1 distance to the 10 nearest offline rows")
        axes.set_ylabel("weight relative to uniform, $N\\tilde{w}_i - 1$")
        axes.set_title("Synthetic rows" + ("" if correlation is None else f" (r = {correlation:.2f})"))
    return correlation
