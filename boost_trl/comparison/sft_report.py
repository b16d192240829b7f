"""A comparison of supervised fine-tuning as a table, a JSON file, pictures and a page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boost_trl.comparison.report import standard_error
from boost_trl.comparison.sft_run import SFTResult
from boost_trl.comparison.sft_setting import SFTSetting
from boost_trl.selection import prefers_weights
from boost_trl.tables import markdown_table


_MEANS = ("eval_loss", "clean_eval_loss", "auc", "loss_auc", "effective_sample_size", "num_rows", "seconds")
SHOWN_QUESTIONS = 5
QUESTIONS_SHARE = 0.1


def with_guard(results: Sequence[SFTResult], method: str, control: str) -> list[SFTResult]:
    """`results` and, for each seed in which both ran, what the guard keeps of `method` and `control`: the weights only if
    rows that no training has seen prefer them ([`~selection.guard.prefers_weights`])."""
    by_run = {(result.method, result.seed): result for result in results}
    kept = []
    for (name, seed), result in by_run.items():
        if name == method and (control, seed) in by_run:
            other = by_run[control, seed]
            kept_result = result if prefers_weights(result.guard_losses, other.guard_losses) else other
            values = {**kept_result.__dict__, "method": f"{method}_guarded"}
            values |= {"label": f"{result.label}, guarded", "seconds": result.seconds + other.seconds}
            kept.append(SFTResult(**values))
    return [*results, *kept]


def aggregate(results: Sequence[SFTResult]) -> list[dict[str, Any]]:
    """One object per method: means over seeds, `eval_loss_se` over seeds, and `runtime_ratio` to plain SFT."""
    rows = []
    for name in dict.fromkeys(result.method for result in results):
        group = [result for result in results if result.method == name]
        row: dict[str, Any] = {"method": name, "label": group[0].label, "seeds": len(group)}
        for field in _MEANS:
            values = [value for result in group if (value := getattr(result, field)) is not None]
            row[field] = float(np.mean(values)) if values else None
        row["eval_loss_se"] = standard_error([result.eval_loss for result in group])
        rows.append(row)
    plain = next((row["seconds"] for row in rows if row["method"] == "sft"), None)
    for row in rows:
        row["runtime_ratio"] = None if plain is None else row["seconds"] / plain
    return rows


HEADER = ["method", "eval loss", "clean loss", "AUC weights", "AUC losses", "n_eff / rows", "seconds", "× plain SFT"]


def _cells(row: dict[str, Any]) -> list[str]:
    def number(value, digits=2):
        return "–" if value is None else f"{value:.{digits}f}"

    return [
        row["label"],
        number(row["eval_loss"]) + (f" ± {row['eval_loss_se']:.2f}" if row["seeds"] > 1 else ""),
        number(row["clean_eval_loss"]),
        number(row["auc"], 3),
        number(row["loss_auc"], 3),
        f"{number(row['effective_sample_size'], 0)} / {row['num_rows']:.0f}",
        number(row["seconds"], 1),
        number(row["runtime_ratio"]),
    ]


def table_rows(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Header and cells, as text."""
    return [HEADER, *(_cells(row) for row in rows)]


def paired_difference(results: Sequence[SFTResult], method: str, control: str) -> tuple[float, float] | None:
    """Mean ± SE over seeds of (evaluation loss of `method` − that of `control`); `None` without a seed that has both."""
    by_run = {(result.method, result.seed): result.eval_loss for result in results}
    seeds = [seed for name, seed in by_run if name == method and (control, seed) in by_run]
    if not seeds:
        return None
    differences = [by_run[method, seed] - by_run[control, seed] for seed in seeds]
    return float(np.mean(differences)), standard_error(differences)


def epoch_weights(run_folder: Path) -> list[np.ndarray]:
    """The weights of the pool's rows after each epoch."""
    paths = sorted((run_folder / "example_weights").glob("epoch-*.parquet"), key=lambda path: int(path.stem[6:]))
    return [pd.read_parquet(path)["weight"].to_numpy() for path in paths]


def draw_weights_over_training(setting: SFTSetting, run_folders: dict[str, Path], path: Path) -> None:
    """Share of all weight that each kind of row has after each epoch, one panel per run; the start is uniform."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = np.asarray(setting.pool["kind"])
    names = sorted(set(kinds), key=lambda kind: (kind != "good", kind))
    figure, panels = plt.subplots(
        1,
        len(run_folders),
        figsize=(3.2 * len(run_folders) + 1, 3.4),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for axes, (title, folder) in zip(panels[0], run_folders.items()):
        weights = [np.ones(len(kinds)), *epoch_weights(folder)]
        for name in names:
            share = [each[kinds == name].sum() / each.sum() for each in weights]
            axes.plot(
                range(len(share)), share, marker="o", markersize=3, label=f"{name} ({(kinds == name).sum()} rows)"
            )
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.set_ylim(0, 1)
    panels[0][0].set_ylabel("share of all weight")
    panels[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_answer_lengths(setting: SFTSetting, run_folders: dict[str, Path], path: Path) -> None:
    """Mean length of the answers to the tenth of the questions with the largest weights, after each epoch ([S] Figure 5)."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    answers = [_text(completion) for completion in setting.pool["completion"]]
    lengths = np.array([len(ids) for ids in setting.tokenizer(answers)["input_ids"]])
    figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    for title, folder in run_folders.items():
        means = [lengths[_extremes(weights)[0]].mean() for weights in epoch_weights(folder)]
        axes.plot(range(1, len(means) + 1), means, marker="o", markersize=3, label=title)
    axes.axhline(lengths.mean(), color="black", linewidth=0.8, linestyle=":", label="all questions")
    axes.set_xlabel("epoch")
    axes.set_ylabel("tokens per offline answer")
    axes.set_title("The tenth of the questions with the largest weights")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _extremes(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the top and of the bottom tenth, most extreme first."""
    count = max(1, round(QUESTIONS_SHARE * len(weights)))
    order = np.argsort(-weights, kind="stable")
    return order[:count], order[::-1][:count]


def questions_page(setting: SFTSetting, run_folders: dict[str, Path]) -> str:
    """Markdown: examples of the top and bottom tenth of the questions after each epoch ([S] Table 8)."""
    kinds = np.asarray(setting.pool["kind"])
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
                    row = setting.pool[int(place)]
                    shown = (_short(_text(row[column])) for column in ("prompt", "completion"))
                    lines.append([f"{weights[place]:.2f}", row["kind"], *shown])
                parts.append(markdown_table(lines, "rlll"))
    return "\n\n".join(parts) + "\n"


def _text(turns: str | list[dict[str, str]]) -> str:
    """A prompt or completion as text, from either of TRL's formats."""
    return turns if isinstance(turns, str) else "\n".join(turn["content"] for turn in turns)


def _short(text: str, limit: int = 120) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
