"""Configuration of [`BilevelDPOTrainer`]."""

import copy
from dataclasses import dataclass
from typing import Any

from transformers import TrainingArguments
from trl import DPOConfig
from trl.trainer.utils import get_config_model_id

from boost_trl.hidden_tokens import without_tokens
from boost_trl.trainer.common.quiet_defaults import set_quiet_defaults
from boost_trl.trainer.dpo.settings import DPOSettings


# What a resumed run may change: where the model comes from, how the reference is read and what is shown.
FREE_ON_RESUME = (
    *(
        "model_init_kwargs",
        "trust_remote_code",
        "dataset_num_proc",
        "activation_offloading",
        "precompute_ref_batch_size",
    ),
    *("min_effective_sample_size", "label_column", "log_weights"),
)


@dataclass
class BilevelDPOConfig(DPOSettings, DPOConfig):
    r"""Configuration class for the [`BilevelDPOTrainer`].

    It holds what is added to [`~trl.DPOConfig`]; all arguments of that class keep their names and defaults. Without a
    validation set only `weight_column` has any effect. With weights, `precompute_ref_log_probs` is always on.

    Equations are numbered as in `docs/equations.md`, which has them all. With ℓ_b the loss of a preference pair (39), ρ the
    penalty of the current epoch and γ = ρ/(1−ρ) (21), one step on the model θ follows

        γ · (Σ_b w_b ℓ_b) / B + (validation loss),                                                             (40)

    where B counts the pairs of the batch and w = N·softmax(ω) are the learned weights. By default they are set before training,
    from the losses of all pairs after a few updates on the validation set, equation (34); pairs are then drawn by w, with all w
    in (40) one.

    Parameters:
        > Parameters that control the weights

        selector (`str`, *optional*, defaults to `"validated"`):
            How the weights are learned. `"validated"`: before training, by what a few updates on the validation set teach the
            model, equations (34) and (19); rows are then drawn by weight. `"bds"`: bilevel data selection (the paper's), equations (24) and (25); `"bmo"` and
            `"bmo_exact"`: bilevel multi-objective, equations (28) and (27); `"rank"`: keeps the rows of lowest loss,
            equation (29); `"mixing"`: no weights, (1−ρ)·validation + ρ·pool with ρ = `rho_init` throughout;
            `"uniform"`: all weights 1 on the schedule of ρ (the control).
        selector_optimizer (`str`, *optional*, defaults to `"sparse"`):
            Optimizer of the logits for `"bds"`: `"sparse"` moves the visited rows only, equation (25); `"adam"` (the
            paper's) and `"sgd"` move all rows, equation (24).
        selector_learning_rate (`float`, *optional*):
            Step size a of the logits in equations (24), (25) and (28). Defaults to 1.0 (sparse and sgd), 1e-4 (adam) and 0.5 (bmo).
        selector_max_step (`float`, *optional*, defaults to `1.0`):
            Largest change of one logit in one step of the sparse optimizer, equation (25).
        selector_loss_at (`str`, *optional*, defaults to `"current"`):
            `"current"`: the selector sees the losses of the training forward, equation (23); `"updated"`: those after the
            model's step (one more forward).
        weight_scale (`str`, *optional*, defaults to `"mean_one"`):
            `"mean_one"`: weights N·softmax(ω) in equation (40); `"simplex"`: softmax(ω) itself, the paper's, which makes the
            pool's gradient 1/N of the validation set's.
        bmo_tau (`float`, *optional*, defaults to `1.0`):
            Temperature τ of `"bmo"` and `"bmo_exact"`, equations (27) and (28).
        bmo_refresh_steps (`int`, *optional*, defaults to `100`):
            Optimizer steps between two passes of `"bmo_exact"` over the whole pool.
        keep_fraction (`float`, *optional*, defaults to `0.3`):
            Share of rows that `"rank"` keeps at the end, the last f of equation (29): about the share of good rows, as
            `selector/trusted_share` in the logs estimates it.
        rank_refresh_steps (`int`, *optional*):
            Optimizer steps between two rankings of `"rank"`. Defaults to a twentieth of an epoch.
        target_effective_fraction (`float`, *optional*, defaults to `0.1`):
            n_eff/N of the weights of `"validated"`, equation (19), in (0, 1].
        selection_guard (`bool`, *optional*, defaults to `True`):
            Choose between the weights of `"validated"` and equal ones by cross-validation: the weights where trusted rows
            that had no part in the scores rank far above chance, else by short trainings with one half of the validation set,
            which the other half's loss judges.
        selection_rounds (`int`, *optional*, defaults to `3`):
            How often `"validated"` scores the pool: before training, and as each of the next epochs begins, when θ of equation
            (34) is the model as it has been trained so far. A later round counts only where its scores agree with the weights
            on rows that were hardly drawn: see `round_agreement`.
        adaptation_learning_rate (`float`, *optional*):
            Learning rate of the updates on the validation set that lead to θ of equation (34). Defaults to `learning_rate`.
        min_effective_sample_size (`float`, *optional*, defaults to `0.01`):
            A warning is given when the effective sample size falls below this share of the rows, or below 2 rows. 0:
            never.

        > Parameters that control the penalty

        rho_init (`float`, *optional*):
            ρ in the first epoch, equation (21): the pool's share of the loss; throughout for `"mixing"` and `"validated"`.
            Defaults to 0.1, for `"validated"` to 0.8.
        rho_increment (`float`, *optional*, defaults to `0.1`):
            Added to ρ at each new epoch, equation (21).
        normalize_penalty (`bool`, *optional*, defaults to `False`):
            Divide equation (40) by 1 + γ, so that it is ρ·pool + (1−ρ)·validation.

        > Parameters that control the validation set

        validation_loss (`str`, *optional*, defaults to `"dpo"`):
            Loss on the validation set: `"dpo"`, that of the pool's pairs, or `"sft"`, the mean loss of the tokens of rows that
            show good answers only.
        per_device_validation_batch_size (`int`, *optional*):
            Validation rows per device and micro-batch. Defaults to `per_device_train_batch_size`.

        > Parameters that control the data

        weight_column (`str`, *optional*):
            Column of fixed weights: a pair's loss is multiplied by it, rows of weight 0 are left out. By default no
            column is used.
        label_column (`str`, *optional*):
            Boolean column, true for good pairs: the AUC of the learned weights against it is logged.
        log_weights (`bool`, *optional*, defaults to `False`):
            Whether to send the rows of largest and smallest weight, with their first words, as a table and all weights as a
            picture to those of tensorboard, wandb, trackio and comet that `report_to` names, at each evaluation and at the end.
    """

    def __post_init__(self):
        set_quiet_defaults(self)
        DPOConfig.__post_init__(self)
        DPOSettings.__post_init__(self)

    def to_dict(self) -> dict[str, Any]:
        """As [`~transformers.TrainingArguments.to_dict`], without tokens in nested settings either."""
        return without_tokens(super().to_dict())


def complete_arguments(args: TrainingArguments | None, model) -> tuple[DPOConfig, BilevelDPOConfig]:
    """Arguments of [`BilevelDPOTrainer`], completed.

    Returns:
        `tuple`: what [`~trl.DPOTrainer`] is given where nothing is weighted, and the same with our fields at their defaults where
        they were not there.
    """
    if args is None:
        model_name = model if isinstance(model, str) else get_config_model_id(model.config)
        args = BilevelDPOConfig(f"{model_name.split('/')[-1]}-DPO")
    if isinstance(args, BilevelDPOConfig):
        return args, copy.copy(args)
    completed = BilevelDPOConfig.from_training_arguments(args)
    return (args if isinstance(args, DPOConfig) else completed), completed
