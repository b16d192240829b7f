"""The shared recipe of the examples: run methods in worlds, print and save the table, the pictures and one game."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from boost_trl.comparison.methods import METHODS
from boost_trl.comparison.report import (
    aggregate,
    draw_weight_against_distance,
    draw_weights_by_kind,
    markdown_table,
    paired_difference,
    text_table,
    write_results,
)
from boost_trl.comparison.run import BETAS, MethodResult, run_method
from boost_trl.comparison.setting import Setting
from boost_trl.environments.policies import GenerationPolicy
from boost_trl.environments.rollout import rollout
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer


HEADROOMS = (("oracle", "uniform"), ("oracle_mix", "uniform_mix"))
CONTROLS = {
    "boost": ("vanilla_validation", "two_stage", "uniform"),
    "validated": ("vanilla_validation", "two_stage", "uniform", "uniform_mix", "return_filter", "loss_filter"),
}


def compare(
    *,
    title: str,
    folder: Path,
    seeds: Sequence[int],
    make_setting: Callable[[int], Setting],
    options: Callable[[int], dict[str, Any]],
    methods: Sequence[str] | None = None,
    games: int = 256,
    validation_games: int = 128,
    settings: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Run every method in every world and report.

    Args:
        title (`str`): of the report.
        folder (`Path`): gets `results.json`, `runs.json`, `report.md` and two pictures.
        seeds (`Sequence[int]`): one world each.
        make_setting (`Callable`): the world of a seed.
        options (`Callable`): training settings for a seed, shared by all methods.
        methods (`Sequence[str]`, *optional*): names of `METHODS`; all by default.
        games (`int`, *optional*, defaults to 256), validation_games (`int`, *optional*, defaults to 128): per method.
        settings (`dict`, *optional*): shown in the report.

    Returns:
        `list[dict]`: the rows of `results.json`.

    Raises:
        ValueError: for an unknown method.
    """
    names = list(METHODS) if methods is None else list(methods)
    if unknown := sorted(set(names) - set(METHODS)):
        raise ValueError(f"unknown methods {unknown}; known: {', '.join(METHODS)}")
    start = time.perf_counter()
    runs: list[MethodResult] = []
    shown: tuple[BilevelOfflineRLTrainer, Setting] | None = None
    for seed in seeds:
        setting = make_setting(seed)
        chosen = [METHODS[name] for name in names]
        chosen = [method for method in chosen if setting.has_planted_noise or not method.needs_planted_noise]
        sets = sum(2 + len(BETAS) + (len(BETAS) - 1) * method.shows_best_beta for method in chosen)
        with tqdm(total=sets, desc=f"world {seed}", unit="step") as bar:
            for method in chosen:
                bar.set_postfix_str(method.label)
                result, trainer = run_method(
                    method,
                    setting,
                    options(seed),
                    folder / "runs" / f"{seed}-{method.name}",
                    advance=bar.update,
                    games=games,
                    validation_games=validation_games,
                )
                runs.append(result)
                if method.name == "boost":
                    shown = (trainer, setting)
    rows = aggregate(runs)
    write_results(folder, rows, runs)
    table = text_table(rows)
    print(f"\n{table}\n")
    findings = _findings(runs)
    print("\n".join(findings))
    pictures = []
    if shown is not None:
        draw_weights_by_kind(shown[0], folder / "weights_by_kind.png")
        correlation = draw_weight_against_distance(shown[0], folder / "weight_against_distance.png")
        pictures = [
            f"![Weights by kind of row](weights_by_kind.png)\n\nBOOST's weights, world {seeds[-1]}.",
            "![Weight against distance](weight_against_distance.png)\n\nSynthetic rows: weight against the distance to the "
            "nearest offline rows" + ("." if correlation is None else f", Pearson r = {correlation:.2f}."),
        ]
    seconds = time.perf_counter() - start
    _write_report(folder, title, rows, findings, pictures, settings or {}, seconds)
    if shown is not None:
        _show_game(*shown, beta=next(run.beta for run in reversed(runs) if run.method == "boost"))
    print(f"\n{folder}/report.md has the table and the pictures; it took {seconds:.0f} s")
    return rows


def _findings(runs: Sequence[MethodResult]) -> list[str]:
    """What the numbers say, losses included."""
    lines = []
    for oracle, control in HEADROOMS:
        headroom = paired_difference(runs, oracle, control)
        if headroom is not None:
            mean, error = headroom
            verdict = "weights have something to gain here" if mean > 2 * error else "no clear room for weights here"
            labels = f"{METHODS[oracle].label} − {METHODS[control].label}"
            lines.append(f"Headroom ({labels}): {mean:+.2f} ± {error:.2f}: {verdict}.")
    for method, controls in CONTROLS.items():
        differences = {control: paired_difference(runs, method, control) for control in controls}
        parts = [
            f"{METHODS[control].label} {difference[0]:+.2f} ± {difference[1]:.2f}"
            for control, difference in differences.items()
            if difference is not None
        ]
        if parts:
            lines.append(f"{METHODS[method].label} minus {', '.join(parts)}.")
    best = [run.best_beta_reward for run in runs if run.best_beta_reward is not None]
    if best:
        lines.append(
            f"Uniform mix at the β that is best on the evaluation games themselves: {sum(best) / len(best):.2f}."
        )
    for run in runs:
        if run.report is not None and "reason" in run.report:
            lines.append(f"Validated reweighting's guard: {run.report['reason']}.")
    if lines and sum(run.method == runs[0].method for run in runs) == 1:
        lines.append(
            "One world only: the errors are over games and say nothing about other worlds; try `--seeds 0 1 2`."
        )
    return lines


def _write_report(folder, title, rows, findings, pictures, settings, seconds) -> None:
    parts = [
        f"# {title}: methods compared",
        markdown_table(rows),
        "\n".join(f"- {line}" for line in findings),
        *pictures,
        "Settings: " + ", ".join(f"`{name}={value}`" for name, value in settings.items()) + f". {seconds:.0f} s.",
        "`reward` is the environment's score (mean ± standard error: over worlds, or over games for one world). n_eff = "
        "1/Σw̃² over the training rows. AUC: how well the weights tell good offline rows from planted noise; – for "
        "constant weights. β was chosen by games on validation tasks. All rows had the same number of policy updates.",
    ]
    (folder / "report.md").write_text("\n\n".join(part for part in parts if part) + "\n")


def _show_game(trainer: BilevelOfflineRLTrainer, setting: Setting, beta: float) -> None:
    """One held-out game of BOOST's policy, as a dialogue."""
    policy = GenerationPolicy(
        trainer.policy(beta=beta), setting.tokenizer, max_new_tokens=setting.max_new_tokens, seed=trainer.args.seed
    )
    task = setting.evaluation_tasks[0]
    game = rollout(policy, setting.make_env, [task], seed=trainer.args.seed, progress=False)[0]
    print(f"One game of BOOST's policy, task {task.id!r} of the held-out category {task.category!r}:")
    for message in game["messages"]:
        speaker = {"assistant": "agent", "user": "world", "tool": "world"}.get(message["role"], message["role"])
        print(f"  {speaker}: {message['content']}")
    print(f"  {'solved' if game['success'] else 'not solved'}, score {game['score']:g}")
