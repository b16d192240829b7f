"""Training and playing one method of a comparison."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PrinterCallback

from boost_trl.comparison.methods import Method
from boost_trl.comparison.setting import Setting
from boost_trl.environments.policies import GenerationPolicy
from boost_trl.environments.rollout import evaluate_policy
from boost_trl.selection.auc import weights_auc
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer


BETAS = (1.0, 2.0, 3.0, 5.0)


@dataclass
class MethodResult:
    """What one method gave in one world. Field names are those of `results.json`."""

    method: str
    label: str
    reward_mean: float
    reward_se: float
    success_rate: float
    mean_turns: float
    effective_sample_size: float
    num_rows: int
    weights_auc: float | None
    beta: float
    seconds: float
    num_tokens: float
    eval_loss: float
    validation_rewards: dict[str, float] = field(default_factory=dict)
    best_beta_reward: float | None = None
    report: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train_method(method: Method, setting: Setting, options: dict[str, Any], folder: Path) -> BilevelOfflineRLTrainer:
    """A trained trainer.

    Args:
        method (`Method`): which.
        setting (`Setting`): model and data.
        options (`dict`): fields of [`BilevelOfflineRLConfig`] that all methods share.
        folder (`Path`): output folder.
    """
    args = BilevelOfflineRLConfig(
        output_dir=str(folder),
        **{"report_to": "none", "save_strategy": "no", "disable_tqdm": True, **options, **method.options},
    )
    shift, args.return_scale = setting.return_normalization(args)
    args.return_shift = shift or None
    # A copy, because training changes what requires a gradient, and with a trained backbone everything.
    model = copy.deepcopy(setting.model)
    trainer = method.trainer_class(
        model,
        args,
        train_dataset=method.rows(setting, args),
        eval_dataset=setting.evaluation,
        processing_class=setting.tokenizer,
        validation_dataset=setting.validation if method.uses_validation else None,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
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
        show_best_beta (`bool`, *optional*): play the reported games at every β and give the best reward too.
        advance (`Callable`, *optional*): called after every set of games.

    Returns:
        `dict`: what `evaluate_policy` returned at the chosen β, with `beta`, `validation_rewards` by β and
        `best_beta_reward`.
    """

    def play(beta, tasks, num_games, seed):
        policy = GenerationPolicy(
            trainer.policy(beta=beta), setting.tokenizer, max_new_tokens=setting.max_new_tokens, seed=seed
        )
        results = evaluate_policy(
            policy, setting.make_env, tasks, num_games=num_games, num_envs=256, seed=seed, progress=False
        )
        advance()
        return results

    rewards = {}
    for beta in betas:
        rewards[beta] = play(beta, setting.validation_tasks, validation_games, 2 * seed + 1)["reward_mean"]
    # Ties go to the smaller β, which stays closer to the data.
    beta = max(betas, key=lambda candidate: (rewards[candidate], -candidate))
    played = {
        candidate: play(candidate, setting.evaluation_tasks, games, 2 * seed)
        for candidate in (betas if show_best_beta else (beta,))
    }
    return {
        **played[beta],
        "beta": beta,
        "validation_rewards": {f"{b:g}": reward for b, reward in rewards.items()},
        "best_beta_reward": max(result["reward_mean"] for result in played.values()) if show_best_beta else None,
    }


def run_method(
    method: Method,
    setting: Setting,
    options: dict[str, Any],
    folder: Path,
    advance: Callable[[], Any] = lambda: None,
    **games,
) -> tuple[MethodResult, BilevelOfflineRLTrainer]:
    """Train and play `method`; `seconds` covers training with its preparation, not the games."""
    start = time.perf_counter()
    trainer = train_method(method, setting, options, folder)
    seconds = time.perf_counter() - start
    advance()
    played = play_method(
        trainer,
        setting,
        seed=options.get("seed", 0),
        show_best_beta=method.shows_best_beta,
        advance=advance,
        **games,
    )
    weights = np.asarray(trainer.example_weights()["weight"])
    result = MethodResult(
        method=method.name,
        label=method.label,
        reward_mean=played["reward_mean"],
        reward_se=played["reward_se"],
        success_rate=played["success_rate"],
        mean_turns=played["mean_turns"],
        effective_sample_size=float(weights.sum() ** 2 / (weights**2).sum()),
        num_rows=len(weights),
        weights_auc=auc_of_planted_truth(trainer, weights),
        beta=played["beta"],
        seconds=seconds,
        num_tokens=float(trainer.num_tokens),
        eval_loss=trainer.evaluate()["eval_loss"],
        validation_rewards=played["validation_rewards"],
        best_beta_reward=played["best_beta_reward"],
        report=trainer.validated_report,
    )
    return result, trainer


def auc_of_planted_truth(trainer: BilevelOfflineRLTrainer, weights: np.ndarray) -> float | None:
    """How well the weights tell good offline rows from planted noise; `None` for constant weights or without noise.

    Synthetic rows are left out: nobody knows which of them are good.
    """
    offline = np.asarray(trainer.trajectories["source"]) == "offline"
    return weights_auc(weights[offline], ~np.asarray(trainer.trajectories["is_noise"])[offline])
