"""Games of a trained policy: β by games on validation tasks, then those that are reported."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset

from boost_trl.comparison.offline_rl.experiment import OfflineRLExperiment
from boost_trl.environments.base import Task
from boost_trl.environments.policies import GenerationPolicy
from boost_trl.environments.rollout import choose_tasks, rollout, summarize
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer


BETAS = (1.0, 2.0, 3.0, 5.0)


def validation_scores(
    trainer: BilevelOfflineRLTrainer,
    experiment: OfflineRLExperiment,
    *,
    betas: Sequence[float] = BETAS,
    games: int = 128,
    seed: int = 0,
    advance: Callable[[], Any] = lambda: None,
) -> dict[float, float]:
    """The mean score of `games` games on validation tasks by β; the same tasks for all."""
    scores = {}
    for beta in betas:
        tasks = choose_tasks(experiment.validation_tasks, games, 2 * seed + 1)
        scores[beta] = summarize(play_games(trainer, experiment, beta, tasks, 2 * seed + 1))["score_mean"]
        advance()
    return scores


def best_beta(scores: Mapping[float, float]) -> float:
    """The β of the highest score; ties go to the smaller one, which stays closer to the data."""
    return max(scores, key=lambda beta: (scores[beta], -beta))


def play_method(
    trainer: BilevelOfflineRLTrainer,
    experiment: OfflineRLExperiment,
    scores: dict[float, float],
    *,
    games: int = 256,
    seed: int = 0,
    show_best_beta: bool = False,
    advance: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """The reported games, on evaluation tasks, at the β that is best on validation tasks.

    Args:
        scores (`dict[float, float]`): of `validation_scores`.
        show_best_beta (`bool`, *optional*): play the reported games at every β and give the best score too.
        advance (`Callable`, *optional*): called after every set of games.

    Returns:
        `dict`: what `evaluate_policy` would return at the chosen β, with `beta`, `validation_scores` by β, `best_beta_score` and
        `games`, the games at the chosen β.
    """
    beta = best_beta(scores)
    tasks, played = choose_tasks(experiment.evaluation_tasks, games, 2 * seed), {}
    for candidate in scores if show_best_beta else (beta,):
        played[candidate] = play_games(trainer, experiment, candidate, tasks, 2 * seed)
        advance()
    summaries = {candidate: summarize(games) for candidate, games in played.items()}
    return {
        **summaries[beta],
        "games": played[beta],
        "beta": beta,
        "validation_scores": {f"{b:g}": score for b, score in scores.items()},
        "best_beta_score": max(result["score_mean"] for result in summaries.values()) if show_best_beta else None,
    }


def play_games(
    trainer: BilevelOfflineRLTrainer, experiment: OfflineRLExperiment, beta: float, tasks: Sequence[Task], seed: int
) -> Dataset:
    """One game per task. Each process plays its share, and all get the games of all."""
    assert experiment.make_env is not None, "an experiment without games"
    state = PartialState()
    # With the same seed all processes would sample identically.
    seed = seed + 1_000_003 * state.process_index
    policy = GenerationPolicy(
        trainer.policy(beta=beta), experiment.tokenizer, max_new_tokens=trainer.args.max_new_tokens, seed=seed
    )
    mine = tasks[state.process_index :: state.num_processes]
    games = rollout(policy, experiment.make_env, mine, num_envs=256, seed=seed, progress=False) if mine else []
    if state.num_processes == 1:
        return games
    columns = ("messages", "rewards", "score", "success", "error")
    return Dataset.from_list(gather_object([{name: game[name] for name in columns} for game in games]))
