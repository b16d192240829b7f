"""Pictures of the weights that an offline RL method ended with."""

from pathlib import Path

import numpy as np

from boost_trl.analysis.weights import distance_to_nearest, pearson, relative_weight_change
from boost_trl.comparison.pictures import figure
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer


PICTURES = ("weights_by_kind.png", "weight_against_distance.png")


def kinds_of_rows(trainer: BilevelOfflineRLTrainer) -> np.ndarray:
    """`offline`, the kind of planted noise, or `synthetic`, for every training row."""
    dataset = trainer.data.train_dataset
    return np.array(
        [
            "synthetic" if source == "synthetic" else (kind or "noise") if is_noise else "offline"
            for source, is_noise, kind in zip(dataset["source"], dataset["is_noise"], dataset["noise_kind"])
        ]
    )


def draw_weights_by_kind(trainer: BilevelOfflineRLTrainer, path: Path) -> None:
    """Relative weight change of every training row, by source and kind of noise."""
    change = relative_weight_change(trainer.example_weights()["weight"])
    kinds = kinds_of_rows(trainer)
    names = ["offline", *sorted({*kinds} - {"offline", "synthetic"}), "synthetic"]
    names = [name for name in names if (kinds == name).any()]
    with figure(path, figsize=(1.5 + 1.6 * len(names), 4)) as (_, axes):
        axes.violinplot([change[kinds == name] for name in names], showmedians=True, widths=0.8)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(range(1, len(names) + 1), [f"{name}\n({(kinds == name).sum()} rows)" for name in names])
        axes.set_ylabel("weight relative to uniform, $N\\tilde{w}_i - 1$")
        axes.set_title("Learned weights by kind of row")


def draw_weight_against_distance(trainer: BilevelOfflineRLTrainer, path: Path) -> float | None:
    """Relative weight change of every synthetic row against its distance to the offline rows; returns Pearson's r."""
    used = trainer.data.training.original_row
    change = relative_weight_change(trainer.example_weights()["weight"])[used]
    is_synthetic = (np.asarray(trainer.data.train_dataset["source"]) == "synthetic")[used]
    embeddings = trainer.reweighter.embeddings.numpy()
    distance = distance_to_nearest(embeddings[is_synthetic], embeddings[~is_synthetic])
    correlation = pearson(distance, change[is_synthetic])
    with figure(path, figsize=(5.5, 4)) as (_, axes):
        axes.scatter(distance, change[is_synthetic], s=8, alpha=0.5)
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xlabel("mean L1 distance to the 10 nearest offline rows")
        axes.set_ylabel("weight relative to uniform, $N\\tilde{w}_i - 1$")
        axes.set_title("Synthetic rows" + ("" if correlation is None else f" (r = {correlation:.2f})"))
    return correlation
