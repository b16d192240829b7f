"""Live games with which `evaluate()` judges a policy."""

import logging
from typing import Any

import pandas as pd
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from boost_trl.environments.base import AllGamesFailed, Environment, make_env
from boost_trl.environments.policies import GenerationPolicy
from boost_trl.environments.rollout import choose_tasks, rollout, summarize
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig


logger = logging.getLogger(__name__)


def checked_games(environment, eval_tasks) -> tuple[Any, list | None]:
    """Environment and tasks as given, a name resolved; wrong ones are refused now and not after hours of training.

    Raises:
        ValueError: for what is no environment, and tasks that cannot be played.
    """
    if environment is None:
        if eval_tasks is not None:
            raise ValueError("`eval_tasks` needs an `environment` to be played in")
        return None, None
    if isinstance(environment, str):
        environment = make_env(environment)
    elif not callable(environment) and not isinstance(environment, Environment):
        raise ValueError(
            f"`environment` is {environment!r}; give an Environment, a function that makes one, or a name for make_env"
        )
    if eval_tasks is not None and len(eval_tasks) == 0:
        raise ValueError("`eval_tasks` is empty; leave it out to play all tasks of the environment")
    return environment, eval_tasks


def play_share(
    policy,
    environment,
    eval_tasks: list | None,
    args: BilevelOfflineRLConfig,
    *,
    tokenizer: PreTrainedTokenizerBase,
    chat_template_kwargs: dict[str, Any],
    accelerator: Accelerator,
) -> list[dict[str, Any]]:
    """This process's share of `args.eval_games` games, with their messages if they are to be logged.

    Args:
        policy (`ValuePolicy`): whole on every process.
        environment (`Environment` or a callable that makes one), eval_tasks (`list[Task]`, *optional*): of `checked_games`.
        args (`BilevelOfflineRLConfig`): `eval_games`, `max_new_tokens` and `seed`.
        tokenizer, chat_template_kwargs: how a game is rendered.
        accelerator (`Accelerator`): whose processes share the games.
    """
    rank, processes = accelerator.process_index, accelerator.num_processes
    tasks = _all_tasks(environment) if eval_tasks is None else eval_tasks
    tasks = choose_tasks(tasks, args.eval_games, args.seed)[rank::processes]
    if not tasks:
        return []
    # With the seed of another process this one would sample identically.
    seed = args.seed + rank
    player = GenerationPolicy(
        policy,
        tokenizer,
        max_new_tokens=args.max_new_tokens,
        seed=seed,
        chat_template_kwargs=chat_template_kwargs,
    )
    games = rollout(player, environment, tasks, seed=seed, progress=rank == 0 and not args.disable_tqdm)
    columns = ["score", "success", "rewards", "error", *(["messages"] if args.log_completions else [])]
    return games.select_columns(columns).to_list()


def game_statistics(games: list[dict[str, Any]], accelerator: Accelerator) -> dict[str, float]:
    """The numbers of `summarize` over the games of all processes, given each one's share; where the environment broke all of
    them, a warning and their number, since training is worth more than its evaluation."""
    if accelerator.num_processes > 1:
        games = gather_object(games)
    try:
        results = summarize(Dataset.from_list(games))
    except AllGamesFailed as error:
        logger.warning("no score: %s", error)
        return {"num_games": 0, "errors": len(games)}
    return {name: value for name, value in results.items() if isinstance(value, int | float)}


def games_table(games: list[dict[str, Any]], step: int) -> pd.DataFrame:
    """One row per game for trackers: what was asked first, everything that followed, and how it ended.

    Args:
        games (`list[dict]`): with messages, of `play_share`.
        step (`int`): policy updates so far, in the first column.
    """
    rows = []
    for game in games:
        texts = [f"{message['role']}: {message['content']}" for message in game["messages"]]
        begin = next((n for n, message in enumerate(game["messages"]) if message["role"] == "assistant"), len(texts))
        ending = {name: game[name] for name in ("score", "success", "error")}
        rows.append(
            {
                "step": step,
                "prompt": "\n".join(texts[:begin]),
                "completion": "\n".join(texts[begin:]),
                "turns": len(game["rewards"]),
                **ending,
            }
        )
    return pd.DataFrame(rows)


def _all_tasks(environment) -> list:
    if isinstance(environment, type) or not isinstance(environment, Environment):
        environment = environment()
    return environment.tasks()
