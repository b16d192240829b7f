"""The shared recipe of the examples: run methods in worlds, print and save the table, the pictures and one game."""

import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from accelerate import PartialState
from accelerate.utils.memory import clear_device_cache
from tqdm.auto import tqdm
from trl import ModelConfig

from boost_trl.comparison.arguments import ComparisonArguments, settings_of
from boost_trl.comparison.methods import METHODS, Method
from boost_trl.comparison.report import (
    aggregate,
    draw_weight_against_distance,
    draw_weights_by_kind,
    paired_difference,
    table_rows,
    write_results,
)
from boost_trl.comparison.run import BETAS, MethodResult, run_method
from boost_trl.comparison.setting import Setting
from boost_trl.comparison.study import saved_or_run
from boost_trl.tables import markdown_table, text_table
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


HEADROOMS = (("oracle", "uniform"), ("oracle_mix", "uniform_mix"))
CONTROLS = {
    "boost": ("vanilla_validation", "two_stage", "uniform"),
    "validated": ("vanilla_validation", "two_stage", "uniform", "uniform_mix", "return_filter", "loss_filter"),
}
PICTURES = ("weights_by_kind.png", "weight_against_distance.png")
POLICY_FOLDER = "policy"
# What a method's folder holds beside its policy.
_NO_POLICY = shutil.ignore_patterns("checkpoint-*", "result.json", *PICTURES)


def compare(
    title: str,
    arguments: ComparisonArguments,
    training_args: BilevelOfflineRLConfig,
    model_args: ModelConfig,
    make_setting: Callable[[int], Setting],
) -> list[MethodResult]:
    """Run every method in every world and report.

    `output_dir` gets `results.json` (one object per method), `runs.json` (one per method and world), `report.md`, two
    pictures, and in `policy` what `boost-trl rollout` plays: in the last world, the policy of the method of highest score
    among those that learn weights, or among all but the oracles if none does. `runs/<seed>-<method>-<settings>` holds what training saves and `result.json`, from which a comparison that
    was killed goes on: what has a result under the same settings is not run again.

    Args:
        title (`str`): of the report.
        arguments (`ComparisonArguments`), training_args (`BilevelOfflineRLConfig`), model_args (`ModelConfig`): as
            `parse_arguments` returns them.
        make_setting (`Callable`): the world of a seed; not called for a world whose results are all there.

    Raises:
        ValueError: for an unknown method.
    """
    names = list(METHODS) if "all" in arguments.methods else list(arguments.methods)
    if unknown := sorted(set(names) - set(METHODS)):
        raise ValueError(f"unknown methods {unknown}; known: all, {', '.join(METHODS)}")
    methods = [METHODS[name] for name in names]
    methods = [method for method in methods if arguments.noise != "none" or not method.needs_planted_noise]
    kept = [method for method in methods if method.learns_weights]
    kept = kept or [method for method in methods if not method.needs_planted_noise]
    state = PartialState()
    start = time.perf_counter()
    folder = Path(training_args.output_dir)
    settings = settings_of(arguments, training_args, model_args)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    seeds = arguments.seeds or [training_args.seed]
    runs, folders, shown = [], {}, None
    for seed in seeds:
        world = _World(seed, make_setting)
        bar = tqdm(
            total=sum(map(_steps, methods)), desc=f"world {seed}", unit="step", disable=not state.is_main_process
        )
        done = 0
        for method in methods:
            bar.set_postfix_str(method.label)
            run_folder = folder / "runs" / f"{seed}-{method.name}-{digest}"
            repository = [training_args.hub_model_id or folder.name, method.name] + [str(seed)] * (len(seeds) > 1)
            args = replace(
                training_args,
                seed=seed,
                cache_dir=training_args.cache_dir or str(folder / "cache"),
                hub_model_id="-".join(repository),
            )
            keep = seed == seeds[-1] and method in kept
            run = partial(_run, method, world, args, run_folder, arguments, bar.update, keep)
            saved = saved_or_run(run_folder / "result.json", {"settings": settings}, run)
            runs.append(MethodResult(**{f.name: saved[f.name] for f in fields(MethodResult) if f.name in saved}))
            if method.name == "boost":
                shown = run_folder
            if keep:
                folders[method.name] = run_folder
            done += _steps(method)
            bar.update(done - bar.n)
        bar.close()
    if state.is_main_process:
        _report(title, folder, runs, settings, shown, seeds[-1])
        _keep_best_policy(folder, runs, folders, arguments.environment)
        print(
            f"\n{folder}/report.md has the table and the pictures; it took {time.perf_counter() - start:.0f} s. Results that "
            f"were there already are reused: delete {folder}/runs to run them again"
        )
    state.wait_for_everyone()
    state.destroy_process_group()
    return runs


class _World:
    """A seed whose model, data and games are made when they are needed."""

    def __init__(self, seed: int, make_setting: Callable[[int], Setting]):
        self.seed, self._make_setting, self._setting = seed, make_setting, None

    @property
    def setting(self) -> Setting:
        if self._setting is None:
            self._setting = self._make_setting(self.seed)
        return self._setting


def _steps(method: Method) -> int:
    """Training and sets of games, as the bar counts them."""
    return 2 + len(BETAS) + (len(BETAS) - 1) * method.shows_best_beta


def _run(
    method: Method,
    world: _World,
    args: BilevelOfflineRLConfig,
    folder: Path,
    arguments: ComparisonArguments,
    advance: Callable[[], object],
    keep: bool,
) -> MethodResult:
    """Train, play, and of BOOST draw the weights."""
    result, trainer = run_method(
        method,
        world.setting,
        args,
        folder,
        advance=advance,
        keep=keep,
        games=arguments.games,
        validation_games=arguments.validation_games,
    )
    if method.name == "boost":
        if PartialState().is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            draw_weights_by_kind(trainer, folder / PICTURES[0])
            result.distance_correlation = draw_weight_against_distance(trainer, folder / PICTURES[1])
    del trainer
    clear_device_cache(garbage_collection=True)
    return result


def _keep_best_policy(folder: Path, runs: Sequence[MethodResult], folders: dict[str, Path], environment: str) -> None:
    """Copy the policy of the best method among `folders` to where it is found, show a game of it and say how to play it."""
    rows = [row for row in aggregate(runs) if row["method"] in folders]
    # Results of an earlier version may lie there without a policy.
    rows = [row for row in rows if (folders[row["method"]] / "value_heads_config.json").is_file()]
    if not rows:
        return
    best = max(rows, key=lambda row: row["score_mean"])
    run = [run for run in runs if run.method == best["method"]][-1]
    policy = folder / POLICY_FOLDER
    shutil.rmtree(policy, ignore_errors=True)
    shutil.copytree(folders[run.method], policy, ignore=_NO_POLICY)
    kind = "best learned" if METHODS[run.method].learns_weights else "best"
    command = ["boost-trl", "rollout", "--model_name_or_path", str(policy), "--environment", environment]
    if run.environment_kwargs:
        command += ["--environment_kwargs", json.dumps(run.environment_kwargs)]
    print(f"\nOne game of {run.label}, the {kind} method's policy, {run.game}")
    print(f"\nThat policy is kept. More of its games: {shlex.join([*command, '--show_games', '3'])}")


def _report(title, folder, runs, settings, shown, seed) -> None:
    """Print the table and what it says; write the files."""
    rows = aggregate(runs)
    write_results(folder, rows, runs)
    print(f"\n{text_table(table_rows(rows))}\n")
    findings = _findings(runs)
    print("\n".join(findings))
    pictures = []
    if shown is not None:
        for name in PICTURES:
            shutil.copy(shown / name, folder / name)
        boost = next(run for run in reversed(runs) if run.method == "boost")
        pictures = [
            f"![Weights by kind of row]({PICTURES[0]})\n\nBOOST's weights, world {seed}.",
            f"![Weight against distance]({PICTURES[1]})\n\nSynthetic rows: weight against the distance to the nearest "
            "offline rows"
            + ("." if boost.distance_correlation is None else f", Pearson r = {boost.distance_correlation:.2f}."),
        ]
    _write_report(folder, title, rows, findings, pictures, settings)


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
    shared, tasks = ({getattr(run, name) for run in runs} for name in ("num_shared_tasks", "num_tasks"))
    lines.append(
        f"Games are drawn from {_range(tasks)} tasks of held-out categories; {_range(shared)} of them have a validation row, "
        "which every method but Vanilla and Vanilla+Syn trains on."
    )
    best = [run.best_beta_score for run in runs if run.best_beta_score is not None]
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


def _range(values: set[int]) -> str:
    return f"{min(values)} to {max(values)}" if len(values) > 1 else str(min(values))


def _write_report(folder, title, rows, findings, pictures, settings) -> None:
    parts = [
        f"# {title}: methods compared",
        markdown_table(table_rows(rows)),
        "\n".join(f"- {line}" for line in findings),
        *pictures,
        "Settings: " + ", ".join(f"`{name}={value}`" for name, value in settings.items()) + ".",
        "`score` is the environment's (mean ± standard error: over worlds, or over games for one world). n_eff = "
        "1/Σw̃² over the training rows. AUC: how well the weights tell good offline rows from planted noise; – for "
        "constant weights. β was chosen by games on validation tasks. All rows had the same number of policy updates.",
    ]
    (folder / "report.md").write_text("\n\n".join(part for part in parts if part) + "\n")
