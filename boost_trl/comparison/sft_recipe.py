"""The recipe of the SFT example: run methods with several seeds; print and save table, pictures and questions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm.auto import tqdm

from boost_trl.comparison.report import write_results
from boost_trl.comparison.sft_methods import SFT_METHODS
from boost_trl.comparison.sft_report import (
    aggregate,
    draw_answer_lengths,
    draw_weights_over_training,
    paired_difference,
    questions_page,
    table_rows,
    with_guard,
)
from boost_trl.comparison.sft_run import SFTResult, run_sft_method
from boost_trl.comparison.sft_setting import SFTSetting
from boost_trl.tables import markdown_table, text_table


GUARDED, CONTROL = "rank_token", "uniform"
CONTROLS = ("uniform", "mixing_half", "mixing_one", "validation_only", "known_good")
PICTURED = ("bds", "bmo", "rank_token", "online_10", "online_dynamic")


def run_methods(
    *,
    folder: Path,
    seeds: Sequence[int],
    make_setting: Callable[[int], SFTSetting],
    options: dict[str, Any],
    methods: Sequence[str],
    share: int | None = None,
    num_shares: int = 1,
) -> list[SFTResult]:
    """Run every method with every seed; those that have a result with the same settings are read.

    Args:
        folder (`Path`): gets `runs/`.
        seeds (`Sequence[int]`): each with its own data and training.
        make_setting (`Callable`): model and data of a seed.
        options (`dict`): fields of [`BilevelSFTSelfRefineConfig`] that all methods share.
        methods (`Sequence[str]`): names of `SFT_METHODS`.
        share (`int`, *optional*): run every `num_shares`-th method only, from this one on, without a progress bar; methods
            that wait for others are left out.
        num_shares (`int`, *optional*, defaults to 1): processes that share the methods.

    Raises:
        ValueError: for an unknown method.
    """
    if unknown := sorted(set(methods) - set(SFT_METHODS)):
        raise ValueError(f"unknown methods {unknown}; known: {', '.join(SFT_METHODS)}")
    results: list[SFTResult] = []
    is_silent = share is not None or not PartialState().is_main_process
    with tqdm(total=len(seeds) * len(methods), desc="runs", unit="run", disable=is_silent) as bar:
        for seed in seeds:
            setting = make_setting(seed)
            mine = list(methods)
            if share is not None:
                mine = [name for name in methods if SFT_METHODS[name].weights_of is None][share::num_shares]
            for name in mine:
                bar.set_postfix_str(f"{SFT_METHODS[name].label}, seed {seed}")
                results.append(run_sft_method(SFT_METHODS[name], setting, options, folder / "runs", seed))
                bar.update()
    return results


def report_sft(
    results: Sequence[SFTResult], setting: SFTSetting, title: str, folder: Path, options: dict[str, Any]
) -> list[dict[str, Any]]:
    """Print and write what came out.

    Args:
        results (`Sequence[SFTResult]`): of all methods and seeds.
        setting (`SFTSetting`): of the last seed, which the pictures are about.
        title (`str`): of the report.
        folder (`Path`): gets `results.json`, `runs.json`, `report.md`, `questions.md` and two pictures; has `runs/`.
        options (`dict`): shown in the report.

    Returns:
        `list[dict]`: the rows of `results.json`.
    """
    results = with_guard(results, GUARDED, CONTROL)
    rows = aggregate(results)
    write_results(folder, rows, results)
    findings = _findings(results)
    print("\n" + text_table(table_rows(rows)) + "\n\n" + "\n".join(findings))
    last_seed = results[-1].seed
    ran = {result.method for result in results}
    shown = {SFT_METHODS[name].label: folder / "runs" / f"{name}-{last_seed}" for name in PICTURED if name in ran}
    pictures = []
    if shown:
        draw_weights_over_training(setting, shown, folder / "weights_over_training.png")
        draw_answer_lengths(setting, shown, folder / "answer_lengths.png")
        (folder / "questions.md").write_text(questions_page(setting, shown))
        pictures = [
            f"![Weights over training](weights_over_training.png)\n\nWeights by kind of row, seed {last_seed}.",
            "![Answer lengths](answer_lengths.png)\n\nLength of the answers to the questions that count most.",
            "[Questions with the largest and smallest weights, epoch by epoch](questions.md)",
        ]
    parts = [
        f"# {title}: methods compared",
        markdown_table(table_rows(rows)),
        "\n".join(f"- {line}" for line in findings),
        *pictures,
        "Settings: " + ", ".join(f"`{name}={value}`" for name, value in options.items()) + ".",
        "`eval loss`: held-out trusted rows; `clean loss`: held-out rows like the pool's good ones; both in nats per token, "
        "± standard error over seeds. `AUC weights`: how well the final weights tell good rows from bad ones; `AUC losses`: "
        "how well the trained model's losses do. n_eff = (Σw)²/Σw². `seconds`: training alone.",
    ]
    (folder / "report.md").write_text("\n\n".join(parts) + "\n")
    return rows


def _findings(results: Sequence[SFTResult]) -> list[str]:
    """Paired differences of the selectors to every control, negatives included."""
    lines = []
    num_seeds = len({result.seed for result in results})
    for name in (f"{GUARDED}_guarded", GUARDED, "bds"):
        label = next((result.label for result in results if result.method == name), None)
        parts = []
        for control in CONTROLS:
            difference = paired_difference(results, name, control)
            if difference is not None:
                error = f" ± {difference[1]:.2f}" if num_seeds > 1 else ""
                parts.append(f"{SFT_METHODS[control].label} {difference[0]:+.2f}{error}")
        if parts:
            lines.append(f"Evaluation loss of {label} minus {', '.join(parts)}.")
    by_run = {(result.method, result.seed): result for result in results}
    for (name, seed), result in by_run.items():
        if name == f"{GUARDED}_guarded":
            is_weighted = result.guard_losses == by_run[GUARDED, seed].guard_losses
            lines.append(f"The guard kept {'the' if is_weighted else 'equal'} weights with seed {seed}.")
    if lines and num_seeds == 1:
        lines.append("One seed only, and single runs vary a lot: try `--seeds 0 1 2`.")
    return lines
