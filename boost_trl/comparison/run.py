"""Training and playing one method of a comparison, on one process or several."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PrinterCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from boost_trl.comparison.methods import Method
from boost_trl.comparison.setting import Setting
from boost_trl.environments.base import Task
from boost_trl.environments.policies import GenerationPolicy
from boost_trl.environments.rollout import choose_tasks, rollout, summarize
from boost_trl.selection.auc import weights_auc
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer
from boost_trl.trainer.common.checkpoints import last_whole_checkpoint


BETAS = (1.0, 2.0, 3.0, 5.0)


@dataclass
class MethodResult:
    """What one method gave in one world. Field names are those of `results.json`.

    `num_tasks` are the distinct tasks that games are drawn from; `num_shared_tasks` of them have a validation row too. Of
    BOOST, `distance_correlation` is Pearson's r of its synthetic rows' weights and their distances to the offline rows.
    Of a method whose policy was kept, `game` is one game on a held-out task that the seed draws, as text, and
    `environment_kwargs` make that world again.
    """

    method: str
    label: str
    score_mean: float
    score_se: float
    success_rate: float
    mean_turns: float
    effective_sample_size: float
    num_rows: int
    weights_auc: float | None
    beta: float
    seconds: float
    num_tokens: float
    eval_loss: float
    num_tasks: int = 0
    num_shared_tasks: int = 0
    validation_scores: dict[str, float] = field(default_factory=dict)
    best_beta_score: float | None = None
    report: dict[str, Any] | None = None
    distance_correlation: float | None = None
    game: str | None = None
    environment_kwargs: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_method(
    method: Method, setting: Setting, args: BilevelOfflineRLConfig, folder: Path
) -> BilevelOfflineRLTrainer:
    """A trained trainer; a run that was killed goes on from its last checkpoint.

    Args:
        method (`Method`): which.
        setting (`Setting`): model and data.
        args (`BilevelOfflineRLConfig`): what all methods share; `model_init_kwargs` are `setting.make_model`'s.
        folder (`Path`): output folder.
    """
    # A copy, because training changes what requires a gradient, and with a trained backbone everything.
    model = setting.make_model()
    args = replace(args, output_dir=str(folder), model_init_kwargs=None, **method.options)
    shift, args.return_scale = setting.return_normalization(model, args)
    args.return_shift = shift or None
    trainer = method.trainer_class(
        model,
        args,
        train_dataset=method.rows(setting, args),
        eval_dataset=setting.evaluation,
        processing_class=setting.tokenizer,
        peft_config=setting.make_peft_config(),
        validation_dataset=setting.validation if method.uses_validation else None,
    )
    if args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
    checkpoint = last_whole_checkpoint(folder, trainer.why_incomplete)
    if checkpoint is not None and Path(checkpoint).name == f"{PREFIX_CHECKPOINT_DIR}-{args.max_steps}":
        # Killed while it played. `train` would make one update more.
        trainer._load_from_checkpoint(checkpoint)
        trainer._use_averaged_parameters()
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    if args.push_to_hub or args.save_strategy != "no":
        # Before games are played: an environment that fails must not cost the training.
        trainer.save_model()
    return trainer


def play_method(
    trainer: BilevelOfflineRLTrainer,
    setting: Setting,
    *,
    betas: Sequence[float] = BETAS,
    validation_games: int = 128,
    games: int = 256,
    seed: int = 0,
    show_best_beta: bool = False,
    advance: Callable[[], Any] = lambda: None,
) -> dict[str, Any]:
    """β from games on validation tasks, then the reported games on evaluation tasks at that β.

    Args:
        show_best_beta (`bool`, *optional*): play the reported games at every β and give the best score too.
        advance (`Callable`, *optional*): called after every set of games.

    Returns:
        `dict`: what `evaluate_policy` would return at the chosen β, with `beta`, `validation_scores` by β and
        `best_beta_score`.
    """

    def play(beta, tasks, num_games, seed):
        games = play_games(trainer, setting, beta, choose_tasks(tasks, num_games, seed), seed)
        advance()
        return summarize(games)

    scores = {}
    for beta in betas:
        scores[beta] = play(beta, setting.validation_tasks, validation_games, 2 * seed + 1)["score_mean"]
    # Ties go to the smaller β, which stays closer to the data.
    beta = max(betas, key=lambda candidate: (scores[candidate], -candidate))
    played = {
        candidate: play(candidate, setting.evaluation_tasks, games, 2 * seed)
        for candidate in (betas if show_best_beta else (beta,))
    }
    return {
        **played[beta],
        "beta": beta,
        "validation_scores": {f"{b:g}": score for b, score in scores.items()},
        "best_beta_score": max(result["score_mean"] for result in played.values()) if show_best_beta else None,
    }


def play_games(
    trainer: BilevelOfflineRLTrainer, setting: Setting, beta: float, tasks: Sequence[Task], seed: int
) -> Dataset:
    """One game per task. Each process plays its share, and all get the games of all."""
    state = PartialState()
    # With the same seed every process would throw the same dice.
    seed = seed + 1_000_003 * state.process_index
    policy = GenerationPolicy(
        trainer.policy(beta=beta), setting.tokenizer, max_new_tokens=trainer.args.max_new_tokens, seed=seed
    )
    mine = tasks[state.process_index :: state.num_processes]
    games = rollout(policy, setting.make_env, mine, num_envs=256, seed=seed, progress=False) if mine else []
    if state.num_processes == 1:
        return games
    columns = ("messages", "rewards", "score", "success", "error")
    return Dataset.from_list(gather_object([{name: game[name] for name in columns} for game in games]))


def run_method(
    method: Method,
    setting: Setting,
    args: BilevelOfflineRLConfig,
    folder: Path,
    advance: Callable[[], Any] = lambda: None,
    keep: bool = False,
    **games,
) -> tuple[MethodResult, BilevelOfflineRLTrainer]:
    """Train and play `method`; `seconds` covers training with its preparation, not the games. With `keep`, `folder` then has
    the policy at the chosen β, and the result a game."""
    start = time.perf_counter()
    trainer = train_method(method, setting, args, folder)
    seconds = time.perf_counter() - start
    advance()
    played = play_method(
        trainer,
        setting,
        seed=args.seed,
        show_best_beta=method.shows_best_beta,
        advance=advance,
        **games,
    )
    weights = np.asarray(trainer.example_weights()["weight"])
    result = MethodResult(
        method=method.name,
        label=method.label,
        score_mean=played["score_mean"],
        score_se=played["score_se"],
        success_rate=played["success_rate"],
        mean_turns=played["mean_turns"],
        effective_sample_size=float(weights.sum() ** 2 / (weights**2).sum()),
        num_rows=len(weights),
        weights_auc=auc_of_planted_truth(trainer, weights),
        beta=played["beta"],
        seconds=seconds,
        num_tokens=float(trainer.num_tokens),
        eval_loss=trainer.evaluate()["eval_loss"],
        num_tasks=len(setting.evaluation_tasks),
        num_shared_tasks=setting.num_shared_tasks,
        validation_scores=played["validation_scores"],
        best_beta_score=played["best_beta_score"],
        report=trainer.validated_report,
    )
    if keep:
        result.game = one_game(trainer, setting, played["beta"])
        result.environment_kwargs = getattr(setting.make_env, "keywords", None)
    if keep or args.push_to_hub:
        trainer.args.beta = played["beta"]
        trainer.save_model(_internal_call=True)  # no upload yet
    if args.push_to_hub:
        trainer.log({f"eval_{name}": played[name] for name in ("score_mean", "score_se", "success_rate", "beta")})
        trainer.create_model_card()  # now with the results
        trainer.push_to_hub()
    return result, trainer


def one_game(trainer: BilevelOfflineRLTrainer, setting: Setting, beta: float) -> str:
    """A held-out game as a dialogue, on a task that the seed draws, so that nobody has looked at how it goes."""
    seed = trainer.args.seed
    (task,) = choose_tasks(setting.evaluation_tasks, 1, seed)
    game = play_games(trainer, setting, beta, [task], seed)[0]
    lines = [f"task {task.id!r} of the held-out category {task.category!r}:"]
    for message in game["messages"]:
        speaker = {"assistant": "agent", "user": "world", "tool": "world"}.get(message["role"], message["role"])
        lines.append(f"  {speaker}: {message['content']}")
    lines.append(f"  {'solved' if game['success'] else 'not solved'}, score {game['score'] or 0:g}")
    return "\n".join(lines)


def auc_of_planted_truth(trainer: BilevelOfflineRLTrainer, weights: np.ndarray) -> float | None:
    """How well the weights tell good offline rows from planted noise; `None` for constant weights or without noise.

    Synthetic rows are left out: nobody knows which of them are good.
    """
    offline = np.asarray(trainer.trajectories["source"]) == "offline"
    return weights_auc(weights[offline], ~np.asarray(trainer.trajectories["is_noise"])[offline])
