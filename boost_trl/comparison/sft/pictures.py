"""Pictures of a comparison of supervised fine-tuning, and a page of its most extreme questions."""

from pathlib import Path

import numpy as np

from boost_trl.analysis.pictures import draw_shares_over_epochs
from boost_trl.analysis.run_files import epoch_weights
from boost_trl.comparison.row_text import shorten, text_of
from boost_trl.comparison.sft.experiment import SFTExperiment
from boost_trl.pictures import figure
from boost_trl.tables import markdown_table


SHOWN_QUESTIONS = 5
QUESTIONS_SHARE = 0.1


def draw_weights_over_training(experiment: SFTExperiment, run_folders: dict[str, Path], path: Path) -> None:
    """Share of all weight that each kind of row has after each epoch, one panel per run."""
    kinds = experiment.pool["kind"][:]
    draw_shares_over_epochs({title: (epoch_weights(folder), kinds) for title, folder in run_folders.items()}, path)


def draw_answer_lengths(experiment: SFTExperiment, run_folders: dict[str, Path], path: Path) -> None:
    """Mean length of the answers to the tenth of the questions with the largest weights, after each epoch ([S] Figure 5)."""
    answers = [text_of(completion) for completion in experiment.pool["completion"]]
    lengths = np.array([len(ids) for ids in experiment.tokenizer(answers)["input_ids"]])
    with figure(path, figsize=(5.5, 3.6)) as (_, axes):
        for title, folder in run_folders.items():
            means = [lengths[_extremes(weights)[0]].mean() for weights in epoch_weights(folder)]
            axes.plot(range(1, len(means) + 1), means, marker="o", markersize=3, label=title)
        axes.axhline(lengths.mean(), color="black", linewidth=0.8, linestyle=":", label="all questions")
        axes.set_xlabel("epoch")
        axes.set_ylabel("tokens per offline answer")
        axes.set_title("The tenth of the questions with the largest weights")
        axes.legend(fontsize=8)


def _extremes(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the top and of the bottom tenth, most extreme first."""
    count = max(1, round(QUESTIONS_SHARE * len(weights)))
    order = np.argsort(-weights, kind="stable")
    return order[:count], order[::-1][:count]


def questions_page(experiment: SFTExperiment, run_folders: dict[str, Path]) -> str:
    """Markdown: examples of the top and bottom tenth of the questions after each epoch ([S] Table 8)."""
    kinds = np.asarray(experiment.pool["kind"])
    rng = np.random.default_rng(0)
    parts = ["# Questions with the largest and smallest weights"]
    for title, folder in run_folders.items():
        parts.append(f"## {title}")
        for epoch, weights in enumerate(epoch_weights(folder), start=1):
            for name, places in zip(("top", "bottom"), _extremes(weights)):
                found = ", ".join(
                    f"{(kinds[places] == kind).mean():.0%} {kind}" for kind in sorted(set(kinds[places]))
                )
                parts.append(f"**Epoch {epoch}, {name} 10 %** ({len(places)} questions): {found}")
                chosen = rng.choice(places, size=min(SHOWN_QUESTIONS, len(places)), replace=False)
                lines = [["weight", "kind", "question", "offline answer"]]
                for place in sorted(chosen, key=lambda place: -weights[place]):
                    row = experiment.pool[int(place)]
                    shown = (shorten(text_of(row[column])) for column in ("prompt", "completion"))
                    lines.append([f"{weights[place]:.2f}", row["kind"], *shown])
                parts.append(markdown_table(lines, "rlll"))
    return "\n\n".join(parts) + "\n"
