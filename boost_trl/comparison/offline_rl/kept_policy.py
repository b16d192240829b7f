"""The policy that is kept after a comparison, and how to play it."""

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from boost_trl.comparison.cell_files import CONFIG_NAME, METRICS_NAME, ROLLOUTS_NAME
from boost_trl.comparison.offline_rl.games_shown import game_text, shown_game
from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.results import Result
from boost_trl.environments.base import Task
from boost_trl.files import write_whole


POLICY_FOLDER = "policy"
# A JSON line per task, in its field `task`. Results of an earlier version have no such file.
HELD_OUT_TASKS_NAME = "held_out_tasks.jsonl"
# What a method's folder holds beside its policy.
_NO_POLICY = shutil.ignore_patterns("checkpoint-*", "result.json", CONFIG_NAME, METRICS_NAME, ROLLOUTS_NAME)


def candidates(names: Sequence[str]) -> list[str]:
    """The methods among `names` that learn weights, or all but the oracles if none does."""
    learned = [name for name in names if METHODS[name].learns_weights]
    return learned or [name for name in names if not METHODS[name].needs_planted_noise]


def keep_best_policy(
    rows: Sequence[dict], results: Sequence[Result], run_folders: Mapping[str, Path], folder: Path, environment: str
) -> tuple[str, str] | None:
    """Copy the policy of the best method to where it is found.

    Args:
        rows (`Sequence[dict]`): one per method, with `method` and `score_mean`.
        results (`Sequence[Result]`): of all methods and seeds.
        run_folders (`Mapping[str, Path]`): where the policies of the candidates lie, by method.
        folder (`Path`): gets `policy/`.
        environment (`str`): name of the environment.

    Returns:
        `tuple[str, str]`: a game of it, and the command that plays more, of the tasks of `save_held_out_tasks`. `None` if no candidate
        has a policy: results of an earlier version may lie there without one.
    """
    found = [
        row
        for row in rows
        if row["method"] in run_folders and (run_folders[row["method"]] / "value_heads_config.json").is_file()
    ]
    if not found:
        return None
    name = max(found, key=lambda row: row["score_mean"])["method"]
    result = [result for result in results if result.method == name][-1]
    policy = folder / POLICY_FOLDER
    shutil.rmtree(policy, ignore_errors=True)
    shutil.copytree(run_folders[name], policy, ignore=_NO_POLICY)
    kind = "best learned" if METHODS[name].learns_weights else "best"
    command = [our_command(), "rollout", "--model_name_or_path", str(policy), "--environment", environment]
    if result["environment_kwargs"]:
        command += ["--environment_kwargs", json.dumps(result["environment_kwargs"])]
    game, shown = shown_game(run_folders[name]), ""
    tasks = policy / HELD_OUT_TASKS_NAME
    if tasks.is_file():
        command += ["--tasks_dataset_name", str(tasks)]
    if game is not None:
        shown = f"One game of {result.label}, the {kind} method's policy, {game_text(game)}"
    return shown, shlex.join([*command, "--watch"])


def save_held_out_tasks(tasks: Sequence[Task], folder: Path) -> None:
    """Write what a kept policy can be watched on."""
    lines = [json.dumps({"task": task.to_dict() | {"data": json.dumps(task.data)}}) + "\n" for task in tasks]
    write_whole(folder / HELD_OUT_TASKS_NAME, "".join(lines))


def our_command() -> str:
    """`boost-trl`, or where it lies beside this Python if no shell would find it, as in an environment that was not activated."""
    beside = Path(sys.executable).with_name("boost-trl")
    if shutil.which("boost-trl") or not beside.is_file():
        return "boost-trl"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)
