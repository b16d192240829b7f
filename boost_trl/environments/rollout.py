"""Playing many games at once: all of them advance in lockstep, one batched policy call per turn."""

import copy
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from .base import AllGamesFailed, Environment, Task, as_task, make_env
from .game import GAME_COLUMNS, Game, close


logger = logging.getLogger(__name__)

Policy = Callable[[list[list[dict[str, Any]]]], list[str]]


def rollout(
    policy: Policy | tuple,
    env: Environment | Callable[[], Environment] | str,
    tasks: Sequence[Task | str | dict[str, Any]],
    *,
    num_envs: int = 64,
    seed: int = 0,
    max_turns: int | None = None,
    step_timeout: float | None = 600.0,
    system_prompt: bool = True,
    source: str = "offline",
    progress: bool = True,
) -> Dataset:
    """Play one game per task and return them in the trajectory format, in the order of `tasks`.

    A finished game's place is taken by the next task, so up to `num_envs` games share every policy call. Games are
    determined by their own seeds; with a sampling policy the replies also depend on `num_envs`.

    Args:
        policy (callable or `tuple`): `policy(conversations) -> replies`, or `(model, tokenizer)`, which plays as
            `GenerationPolicy(model, tokenizer, seed=seed)`.
        env (`Environment`, callable or `str`): an environment (copied, one for each concurrent game), a factory, or a
            name for `make_env`.
        tasks (list of `Task`, `str` or `dict`): one game each; ids and the `task` column of a dataset are accepted.
        num_envs (`int`, *optional*, defaults to `64`): games that play at the same time.
        seed (`int`, *optional*, defaults to `0`): the game of task i is reset with a seed made of this and i.
        max_turns (`int`, *optional*): cut games after so many actions; the environment's own limit by default.
        step_timeout (`float`, *optional*, defaults to `600.0`): seconds that the environment may take for its answer to one
            action, or for its start; a game that takes longer is lost alone, as one that raises. `None` waits forever.
        system_prompt (`bool`, *optional*, defaults to `True`): begin with the environment's system prompt, if any.
        source (`str`, *optional*, defaults to `"offline"`): goes to the column of that name.
        progress (`bool`, *optional*, defaults to `True`): show a bar over games.

    Returns:
        `datasets.Dataset` with `messages`, `rewards`, `terminated`, `category`, `source`, `task`, `score` (of the
        final info, else the sum of rewards; none for a game cut by `max_turns`), `success`, `seed`,
        `invalid_actions`, `error` (what the environment raised and where, or answered that is none,
        which ended this game only) and every other plain
        value in the final info. The final observation is dropped of a terminated game, kept of a truncated one.

    Raises:
        ValueError: if there are no tasks or the policy does not return one text per conversation.
    """
    if step_timeout is not None and not step_timeout > 0:
        raise ValueError(f"`step_timeout` must be a positive number of seconds or None, got {step_timeout}")
    if not len(tasks):
        raise ValueError("rollout needs at least one task; pass `env.tasks()` for all of them")
    if num_envs < 1:
        raise ValueError(f"`num_envs` must be at least 1, got {num_envs}")
    policy = _as_policy(policy, seed)
    make = _as_factory(env)
    idle = [make()]
    games = [
        Game(task, random.Random(f"{seed}/{index}").getrandbits(31), step_timeout)
        for index, task in enumerate(_known_tasks(tasks, idle[0]))
    ]
    waiting = games[::-1]
    playing: list[Game] = []
    remembering = getattr(policy, "remembering", nullcontext)
    with remembering(), tqdm(total=len(games), desc="Playing", unit="game", disable=not progress) as bar:
        try:
            while waiting or playing:
                while waiting and len(playing) < num_envs:
                    game = waiting.pop()
                    playing.append(game)
                    game.start(idle.pop if idle else make, system_prompt)
                _act(policy, [game for game in playing if not game.over], max_turns)
                for game in playing:
                    if game.over:
                        idle += game.leave()
                        bar.update()
                playing = [game for game in playing if not game.over]
        finally:
            for environment in [*idle, *(game.env for game in playing)]:
                close(environment, step_timeout)
    return Dataset.from_list(_rows(games, source))


def evaluate_policy(
    policy: Policy | tuple,
    env: Environment | Callable[[], Environment] | str,
    tasks: Sequence[Task | str | dict[str, Any]],
    *,
    num_games: int | None = None,
    num_envs: int = 64,
    seed: int = 0,
    system_prompt: bool = True,
    progress: bool = True,
) -> dict[str, float]:
    """Play and report mean ± standard error of the score, success rate and length.

    No task is favoured: all are played ⌊`num_games` / number of tasks⌋ times, and the rest is drawn without
    replacement. Games that the environment broke are counted in `errors` and left out of the means.

    Args:
        policy, env, tasks, num_envs, seed, system_prompt, progress: as in [`rollout`].
        num_games (`int`, *optional*): defaults to one per task.

    Returns:
        `dict` with `score_mean`, `score_se`, `success_rate`, `mean_turns`, `num_games` (played to their end) and
        `errors`.

    Raises:
        AllGamesFailed: a `RuntimeError`, if every game ended in an error; the message quotes one.
    """
    rows = rollout(
        policy,
        env,
        choose_tasks(tasks, num_games, seed),
        num_envs=num_envs,
        seed=seed,
        system_prompt=system_prompt,
        progress=progress,
    )
    return summarize(rows)


def choose_tasks(tasks: Sequence[Any], num_games: int | None = None, seed: int = 0) -> list[Any]:
    """`num_games` tasks, each as often as any other up to one; what is left over is drawn without replacement."""
    num_games = len(tasks) if num_games is None else num_games
    if num_games < 1 or not len(tasks):
        raise ValueError(
            f"there must be a game to play, but num_games is {num_games} and there are {len(tasks)} tasks"
        )
    rounds, rest = divmod(num_games, len(tasks))
    chosen = [*range(len(tasks))] * rounds + random.Random(f"{seed}/tasks").sample(range(len(tasks)), rest)
    return [tasks[index] for index in chosen]


def summarize(rows: Dataset) -> dict[str, float]:
    """Scores, success rate and turns over the rows that [`rollout`] returned, as [`evaluate_policy`] reports them."""
    played = [row for row in rows if row["error"] is None]
    errors = len(rows) - len(played)
    if not played:
        raise AllGamesFailed(f"all {errors} games ended in an error of the environment, such as: {rows[0]['error']}")
    if errors:
        example = next(row["error"] for row in rows if row["error"] is not None)
        logger.warning("%d of %d games ended in an error of the environment, such as: %s", errors, len(rows), example)

    from boost_trl.metrics import EpisodeScore

    results = EpisodeScore(keep_in_memory=True).compute(
        scores=[row["score"] for row in played],
        successes=[bool(row["success"]) for row in played],
        turns=[len(row["rewards"]) for row in played],
    )
    return {**results, "errors": errors}


def _act(policy: Policy, games: list[Game], max_turns: int | None) -> None:
    """One action in each of `games`, from one call of the policy."""
    if not games:
        return
    replies = policy([game.messages for game in games])
    if len(replies) != len(games) or not all(isinstance(reply, str) for reply in replies):
        raise ValueError(f"the policy must return one text per conversation, {len(games)} of them")
    for game, reply in zip(games, replies):
        game.act(reply, max_turns)


def _rows(games: list[Game], source: str) -> list[dict[str, Any]]:
    rows = [game.row(source) for game in games]
    columns = dict.fromkeys(key for row in rows for key in row)
    if not any(row["task"]["data"] for row in rows):
        # Parquet has no struct without fields; as text, rows also concatenate with those of other environments.
        for row in rows:
            row["task"]["data"] = "{}"
    for column in columns.keys() - GAME_COLUMNS:
        _leave_out_other_types(rows, column)
    return [{column: row.get(column) for column in columns} for row in rows]


def _leave_out_other_types(rows: list[dict[str, Any]], column: str) -> None:
    """A column holds values of one type: those of most games stay."""
    kinds = [_kind(row[column]) for row in rows if column in row]
    kept = max(dict.fromkeys(kinds), key=kinds.count)
    if kinds.count(kept) < len(kinds):
        logger.warning(
            "info[%r] is left out of %d games, where it is no %s as in the others",
            column,
            len(kinds) - kinds.count(kept),
            kept.__name__,
        )
    for row in rows:
        if column in row and _kind(row[column]) is not kept:
            del row[column]


def _kind(value: Any) -> type:
    return next(kind for kind in (str, bool, float) if isinstance(value, kind) or kind is float)


def _as_policy(policy: Policy | tuple, seed: int) -> Policy:
    if isinstance(policy, tuple):
        from .policies import GenerationPolicy

        return GenerationPolicy(*policy, seed=seed)
    return policy


def _as_factory(env: Environment | Callable[[], Environment] | str) -> Callable[[], Environment]:
    if isinstance(env, str):
        return partial(make_env, env)
    if not isinstance(env, type) and isinstance(env, Environment):
        return partial(copy.deepcopy, env)
    if callable(env):
        return env
    raise ValueError(f"`env` must be an Environment, a factory or a name, got {type(env).__name__}")


def _known_tasks(tasks: Sequence[Task | str | dict[str, Any]], env: Environment) -> list[Task]:
    by_id = {task.id: task for task in env.tasks()} if any(isinstance(task, str) for task in tasks) else {}
    unknown = sorted({task for task in tasks if isinstance(task, str)} - by_id.keys())
    if unknown:
        raise ValueError(f"{env.name} has no task {unknown[0]!r}; ids look like {next(iter(by_id))!r}")
    return [by_id[task] if isinstance(task, str) else as_task(task) for task in tasks]
