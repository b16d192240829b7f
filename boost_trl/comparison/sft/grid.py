"""Tables 1 to 4 of [S] on the embedded pool: methods × two models × seeds, with the paper's figures beside them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boost_trl.comparison.cells import Cell
from boost_trl.comparison.report import write_page
from boost_trl.comparison.results import Result, standard_error
from boost_trl.comparison.sft.comparison import SFTComparison
from boost_trl.comparison.sft.contradiction_pool import contradiction_pool
from boost_trl.comparison.sft.experiment import SFTExperiment
from boost_trl.comparison.sft.methods import SFT_METHODS
from boost_trl.comparison.significance import Estimate, estimate, paired_estimate
from boost_trl.files import write_whole
from boost_trl.pictures import figure
from boost_trl.tables import markdown_table, plus_minus, text_table


TINY_TRAINING = {
    "use_cpu": True,
    "bf16": False,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 200,
    "lr_scheduler_type": "linear",
    "max_length": 32,
    "dataloader_pin_memory": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 20,
    "disable_tqdm": True,
    "generation_interval": 150,
    "generation_batch_size": 256,
    "max_generation_length": 6,
}
# As examples/configs/sft_contradiction*.yaml: a model that has everything to learn, and one that knows every convention.
MODELS = {
    "scratch": {**TINY_TRAINING, "num_train_epochs": 8, "learning_rate": 3e-3},
    "pretrained": {**TINY_TRAINING, "max_steps": 300, "learning_rate": 1e-3},
}
PRETRAINING_EPOCHS = {"scratch": 0, "pretrained": 14}
# Of a cell on one core of a 2026 server.
SECONDS = {"scratch": 30.0, "pretrained": 16.0}
OFFLINE, MIXING, RECIPE = "bds", "mixing_half", "validated"
ONLINE = ("online_5", "online_10", "online_10_g2", "online_10_g5", "online_dynamic")
CONTROLS = ("uniform", "two_stage", "known_good_mixed")
DEFAULT_METHODS = ("mixing_one", MIXING, OFFLINE, *ONLINE, "bmo", *CONTROLS, RECIPE)
# Mean and standard error by column, of four runs.
PAPER_LOSS = {
    "mixing_one": ((1.56, 0.008), (0.92, 0.012)),
    "mixing_half": ((1.41, 0.011), (0.84, 0.008)),
    "bds": ((1.38, 0.005), (0.80, 0.007)),
    "online_5": ((1.37, 0.005), (0.80, 0.004)),
    "online_10": ((1.34, 0.003), (0.78, 0.006)),
    "online_10_g5": ((1.32, 0.004), (0.76, 0.003)),
}
PAPER_HOURS = {
    "mixing_half": (0.24, 10.53),
    "bds": (0.31, 11.75),
    "online_5": (0.43, 13.28),
    "online_10": (0.47, 13.78),
    "online_10_g5": (0.86, 30.46),
}
PAPER_SAFETY = {
    "mixing_half": ((0.88, 0.010), (1.31, 0.012)),
    "mixing_one": ((0.94, 0.007), (1.27, 0.008)),
    "bds": ((0.85, 0.006), (1.25, 0.005)),
    "online_5": ((0.84, 0.004), (1.22, 0.003)),
    "online_10": ((0.83, 0.005), (1.20, 0.005)),
    "online_10_g2": ((0.83, 0.003), (1.17, 0.004)),
    "online_dynamic": ((0.82, 0.004), (1.02, 0.006)),
}
PAPER_PIPELINES = {"bds": ((1.378, 0.005), (1.541, 0.003)), "bmo": ((1.377, 0.002), (1.543, 0.002))}
PICTURE = "eval_loss.png"
NOTES = (
    "Losses in nats per token, lower is better, mean ± standard error over seeds. *Columns in italics are the paper's*: "
    "other data and models, so that levels cannot be compared, only orders. `scratch`: a model that has everything to learn "
    "from the pool; `pretrained`: one that can answer by every convention, so that training only selects. Rows after the "
    "paper's are controls, the bar (only the rows known to be good), and our default. The second loss of tables 3 and 4 is "
    "that of clean rows like the pool's good ones, which are drawn like the trusted ones here. Differences are paired by seed "
    "and trusted row; a star: p < .05, two-sided, by Student's t over seeds (with one seed over rows)."
)


class SFTGrid(SFTComparison):
    """The methods of [S] and their controls on the embedded pool, with two models.

    Args:
        folder (`str` or `Path`): gets `runs/<method>-<seed>-<model>/` and the report.
    """

    def __init__(self, folder: str | Path):
        super().__init__(folder, {}, self._build)

    def _build(self, cell: Cell) -> SFTExperiment:
        return contradiction_pool(cell.seed, pretraining_epochs=PRETRAINING_EPOCHS[cell.setting])

    def options_of(self, cell: Cell) -> dict[str, Any]:
        return MODELS[cell.setting]

    def known_seconds(self, cell: Cell) -> float:
        """Roughly what a cell takes on one core."""
        return SECONDS[cell.setting]

    def cells(self, seeds: Sequence[int], methods: Sequence[str]) -> list[Cell]:
        """All cells, in an order in which data are made once."""
        return [Cell(method, seed, model) for model in MODELS for seed in seeds for method in methods]


def write_report(folder: Path, results: Sequence[Result], command: str) -> str:
    """Write `results.json`, `runs.json`, the picture and the page; returns what the terminal shows."""
    write_whole(folder / "results.json", json.dumps(loss_rows(results), indent=1) + "\n")
    write_whole(folder / "runs.json", json.dumps([result.to_dict() for result in results]) + "\n")
    draw_losses(results, folder / PICTURE)
    title = "Tables 1 to 4 of selection and self-refining, reproduced"
    losses = loss_table(results)
    parts = [
        f"# {title}",
        f"```\n{command}\n```",
        "## Table 1: evaluation loss",
        markdown_table(losses),
        f"![Evaluation losses of all methods]({PICTURE})",
        differences_table(results),
        f"## Table 2: cost\n\n{cost_table(results)}",
        "## Table 3: upper and lower level, dynamic masks",
        levels_table(results, PAPER_SAFETY, ("BlueOrca", "RedOrca")),
        "## Table 4: BDS and BMO",
        levels_table(results, PAPER_PIPELINES, ("OpenOrca", "Alpaca"), only=True),
        NOTES,
    ]
    write_page(folder, title, "\n\n".join(part for part in parts if part) + "\n")
    return text_table(losses)


def loss_rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One object per model and method, for `results.json`."""
    rows = []
    for model in MODELS:
        for name in _names(results):
            if group := _group(results, model, name):
                loss = _loss(group)
                rows.append(
                    {
                        "model": model,
                        "method": name,
                        "label": SFT_METHODS[name].label,
                        "eval_loss": loss.mean,
                        "eval_loss_se_over_seeds": loss.seeds_error,
                        "eval_loss_se_over_rows": loss.items_error,
                        "clean_eval_loss": float(np.mean([result["clean_eval_loss"] for result in group])),
                        "seconds": float(np.mean([result.seconds for result in group])),
                        "seeds": loss.seeds,
                    }
                )
    return rows


def loss_table(results: Sequence[Result]) -> list[list[str]]:
    """Header and cells: Table 1, the loss on trusted rows that nothing trained on."""
    lines = [["method", *MODELS, "*Pythia-1B*", "*Llama-8B*"]]
    for name in _names(results):
        ours = [_text(_group(results, model, name)) for model in MODELS]
        lines.append([SFT_METHODS[name].label, *ours, *_paper(PAPER_LOSS.get(name))])
    return lines


def differences_table(results: Sequence[Result]) -> str:
    """Markdown: evaluation losses of offline selection, online answers and our default minus every other method's."""
    names = _names(results)
    methods = [name for name in (OFFLINE, "online_10", RECIPE) if name in names]
    columns = [(model, method) for model in MODELS for method in methods]
    lines = [
        ["evaluation loss minus that of", *(f"{SFT_METHODS[method].label}, {model}" for model, method in columns)]
    ]
    for other in names:
        cells = []
        for model, method in columns:
            ours, theirs = (_losses(_group(results, model, name)) for name in (method, other))
            found = paired_estimate(ours, theirs) if method != other else None
            cells.append("" if found is None else found.text("+.3f"))
        lines.append([SFT_METHODS[other].label, *cells])
    return markdown_table(lines) if methods else ""


def cost_table(results: Sequence[Result]) -> str:
    """Markdown: Table 2, seconds of training and how often they are those of direct mixing."""
    lines = [["method", *(f"seconds, {model}" for model in MODELS), *(f"× mixing, {model}" for model in MODELS)]]
    lines[0] += ["*hours, Pythia-1B*", "*hours, Llama-8B*", "*× mixing*", "*× mixing*"]
    for name in _names(results):
        seconds = [[result.seconds for result in _group(results, model, name)] for model in MODELS]
        mixing = [[result.seconds for result in _group(results, model, MIXING)] for model in MODELS]
        hours = PAPER_HOURS.get(name)
        lines.append(
            [
                SFT_METHODS[name].label,
                *(plus_minus(float(np.mean(each)), standard_error(each), ".1f") if each else "" for each in seconds),
                *(f"{np.mean(a) / np.mean(b):.2f}" if a and b else "" for a, b in zip(seconds, mixing)),
                *(("", "") if hours is None else (f"*{each:.2f}*" for each in hours)),
                *(("", "") if hours is None else (f"*{a / b:.2f}*" for a, b in zip(hours, PAPER_HOURS[MIXING]))),
            ]
        )
    return markdown_table(lines)


def levels_table(
    results: Sequence[Result],
    paper: dict[str, tuple[tuple[float, float], tuple[float, float]]],
    columns: tuple[str, str],
    only: bool = False,
) -> str:
    """Markdown: losses on trusted rows and on clean rows like the pool's good ones, as Tables 3 and 4.

    Args:
        results (`Sequence[Result]`): of all cells.
        paper (`dict`): the paper's two losses by method.
        columns (`tuple[str, str]`): what they are of.
        only (`bool`, *optional*, defaults to `False`): leave out the methods that the paper's table has not.
    """
    heads = [f"{kind}, {model}" for model in MODELS for kind in ("trusted", "clean")]
    lines = [["method", *heads, *(f"*{column}*" for column in columns)]]
    for name in _names(results):
        if only and name not in paper:
            continue
        cells = []
        for model in MODELS:
            group = _group(results, model, name)
            clean = [result["clean_eval_loss"] for result in group]
            cells += [_text(group), plus_minus(float(np.mean(clean)), standard_error(clean), ".3f") if clean else ""]
        lines.append([SFT_METHODS[name].label, *cells, *_paper(paper.get(name))])
    return markdown_table(lines)


def draw_losses(results: Sequence[Result], path: Path) -> None:
    """One panel per model: every method's loss on trusted rows, ± standard error; shorter is better."""
    names = _names(results)
    with figure(path, 1, len(MODELS), figsize=(11, 1 + 0.3 * len(names)), squeeze=False, sharey=True) as (_, panels):
        for axes, model in zip(panels[0], MODELS):
            found = [(y, _loss(group)) for y, name in enumerate(names) if (group := _group(results, model, name))]
            axes.barh([y for y, _ in found], [loss.mean for _, loss in found], xerr=[loss.error for _, loss in found])
            axes.set_yticks(range(len(names)), [SFT_METHODS[name].label for name in names])
            axes.set_xlabel("loss on trusted rows, nats per token")
            axes.set_title(model)
        panels[0][0].invert_yaxis()


def _names(results: Sequence[Result]) -> list[str]:
    return [name for name in DEFAULT_METHODS if any(result.method == name for result in results)] + sorted(
        {result.method for result in results} - {*DEFAULT_METHODS}
    )


def _group(results: Sequence[Result], model: str, name: str) -> list[Result]:
    return [result for result in results if (result.setting, result.method) == (model, name)]


def _losses(group: Sequence[Result]) -> dict[int, list[float]]:
    return {result.seed: result["eval_losses"] for result in group}


def _loss(group: Sequence[Result]) -> Estimate:
    return estimate(list(_losses(group).values()))


def _text(group: Sequence[Result]) -> str:
    return _loss(group).text(".3f") if group else ""


def _paper(figures: tuple[tuple[float, float], tuple[float, float]] | None) -> list[str]:
    return ["", ""] if figures is None else [f"*{plus_minus(*each, '.3f')}*" for each in figures]
