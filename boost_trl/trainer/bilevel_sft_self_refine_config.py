"""Configuration of [`BilevelSFTSelfRefineTrainer`]."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainingArguments
from trl import SFTConfig
from trl.trainer.utils import get_config_model_id

from boost_trl.hidden_tokens import without_tokens
from boost_trl.trainer.common.quiet_defaults import set_quiet_defaults
from boost_trl.trainer.sft.settings import SFTSelfRefineSettings


# What a resumed run may change: where the model comes from, how the answers are generated and what is shown.
FREE_ON_RESUME = (
    *("model_init_kwargs", "trust_remote_code", "dataset_num_proc", "activation_offloading", "eval_packing"),
    *("min_effective_sample_size", "label_column", "log_weights", "log_completions", "num_completions_to_print"),
    *("generation_batch_size", "use_vllm", "vllm_mode", "vllm_server_base_url", "vllm_group_port"),
    *("vllm_gpu_memory_utilization", "vllm_max_model_length", "vllm_tensor_parallel_size", "vllm_enable_sleep_mode"),
)


@dataclass
class BilevelSFTSelfRefineConfig(SFTSelfRefineSettings, SFTConfig):
    r"""Configuration class for the [`BilevelSFTSelfRefineTrainer`].

    It holds what is added to [`~trl.SFTConfig`]; all arguments of that class keep their names and defaults. Without a
    validation set only `weight_column` has any effect.

    Equations are numbered as in `docs/equations.md`, which has them all. With ρ the pool's share of the loss in the current epoch and
    γ = ρ/(1−ρ) (21), one step on the model θ follows

        γ · (Σ_b w_b Σ_t ℓ_bt) / N_pool + (validation loss),                                                   (22)

    where N_pool counts the pool's tokens of the whole optimizer batch and w = N·softmax(ω) are the learned weights. By default
    they are set before training, from the losses of all rows under the model as it is given, θ₀, and after a few updates on the
    validation set, θ; rows are then drawn by w, with all w in (22) one:

        f_i = ½ ℓ_i(θ₀) − ℓ_i(θ),    ω = k f.                                                                 (34)

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
        selector_baseline (`str`, *optional*, defaults to `"token"`):
            `"token"`: a row's loss is measured against a running mean loss of each of its tokens, equations (30) and (31), so
            that hard words are not mistaken for bad rows. `"none"` or `None`: the raw loss, as in the papers.
        selector_loss_at (`str`, *optional*, defaults to `"current"`):
            `"current"`: the selector sees the losses of the training forward, equation (23); `"updated"`: those after the
            model's step (one more forward).
        selection_loss (`str`, *optional*, defaults to `"mean"`):
            A row's loss C_b as the selector sees it, equation (23): the mean over its tokens, or their `"sum"` (the paper's,
            which punishes long answers).
        weight_scale (`str`, *optional*, defaults to `"mean_one"`):
            `"mean_one"`: weights N·softmax(ω) in equation (22); `"simplex"`: softmax(ω) itself, the paper's, which makes the
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
            Divide equation (22) by 1 + γ, so that it is ρ·pool + (1−ρ)·validation.

        > Parameters that control the validation set

        validation_loss (`str`, *optional*, defaults to `"sft"`):
            Loss on the validation set: `"sft"`, or `"dpo"` for rows with `prompt`, `chosen` and `rejected`. From
            Python also a callable `(model, inputs) -> losses` that returns one loss per row (a scalar stands for the
            mean of the rows).
        per_device_validation_batch_size (`int`, *optional*):
            Validation rows per device and micro-batch. Defaults to `per_device_train_batch_size`.
        dpo_beta (`float`, *optional*, defaults to `0.1`):
            β of `validation_loss="dpo"`.
        confidence_share (`float`, *optional*, defaults to `0.2`):
            Share of the validation set, at most 64 rows, that is kept out of training where there is no `eval_dataset`, not
            with `"validated"`: how far the weights can be trusted is measured on these rows, or on those of `eval_dataset`. 0: do not measure.

        > Parameters that control the data

        weight_column (`str`, *optional*):
            Column of fixed weights: a row's loss is multiplied by it, rows of weight 0 are left out. By default no
            column is used.
        label_column (`str`, *optional*):
            Boolean column, true for good rows: the AUC of the learned weights against it is logged.
        log_weights (`bool`, *optional*, defaults to `False`):
            Whether to send the rows of largest and smallest weight, with their first words, as a table and all weights as a
            picture to those of tensorboard, wandb, trackio and comet that `report_to` names, at each evaluation and at the end.
        example_id_column (`str`, *optional*):
            Streaming data only: column of row numbers from 0 to `num_examples - 1`, all different.
        num_examples (`int`, *optional*):
            Streaming data only: number of rows, needed with `example_id_column`; without it ρ does not grow.
        source_column (`str`, *optional*, defaults to `"source"`):
            Streaming data without row numbers: column by which rows share a weight.
        source_names (`list[str]`, *optional*):
            Streaming data without row numbers: all values of `source_column`.

        > Parameters that control online self-refining

        online_ratio (`float`, *optional*, defaults to `0.0`):
            R, share of the training rows whose answers are replaced by the model's own, in [0, 1).
        num_generations (`int`, *optional*, defaults to `1`):
            G, the model's answers to each such question, equation (32). A micro-batch grows by G − 1 rows for each of them.
        generation_interval (`int`, *optional*, defaults to `500`):
            K_gen, optimizer steps between two refreshes of the answers.
        online_mask (`str`, *optional*, defaults to `"random"`):
            Which rows: `"random"`, fixed throughout, or `"dynamic"`, those of lowest weight at each refresh.
        generation_temperature (`float`, *optional*, defaults to `0.8`):
            Sampling temperature of the answers. Losses and ratios are at temperature 1.
        max_generation_length (`int`, *optional*, defaults to `512`):
            Longest answer in tokens. Question and answer also stay within `max_length`.
        generation_batch_size (`int`, *optional*, defaults to `16`):
            Answers per device that are generated at once.
        importance_sampling_level (`str`, *optional*, defaults to `"sequence"`):
            Importance ratio r in equation (32): of a `"sequence"` (the paper's), of each `"token"`, or the sequence's `"geometric"` mean.
        importance_sampling_cap (`float`, *optional*, defaults to `3.0`):
            Largest ratio r. `None`: no limit, as in the paper.
        response_weighting (`str`, *optional*, defaults to `"importance"`):
            What multiplies an answer's loss: the `"importance"` ratio, a `"softmax"` of −loss over the answers to one
            question, equation (33), or `"none"`.
        log_completions (`bool`, *optional*, defaults to `False`):
            Whether to send the answers of each refresh as a table to those of tensorboard, wandb, trackio and comet that
            `report_to` names, and to print them if `rich` is installed.
        num_completions_to_print (`int`, *optional*):
            Largest number of answers in such a table. If `None`, all are in it.

        > Parameters that control generation by vLLM

        use_vllm (`bool`, *optional*, defaults to `False`):
            Whether vLLM generates the answers instead of transformers. Requires `vllm` to be installed.
        vllm_mode (`str`, *optional*, defaults to `"colocate"`):
            `"colocate"`: in the training processes, on the same devices; `"server"`: in a separate server, started
            with `vllm serve`.
        vllm_server_base_url (`str`, *optional*):
            URL of the server. Defaults to `"http://0.0.0.0:8000"`.
        vllm_group_port (`int`, *optional*, defaults to `51216`):
            Port by which the server receives weights.
        vllm_gpu_memory_utilization (`float`, *optional*, defaults to `0.3`):
            Share of the device's memory for vLLM in `"colocate"` mode.
        vllm_max_model_length (`int`, *optional*):
            Longest question and answer together. Inferred from the model's config if `None`.
        vllm_tensor_parallel_size (`int`, *optional*, defaults to `1`):
            Devices that share one vLLM engine in `"colocate"` mode.
        vllm_enable_sleep_mode (`bool`, *optional*, defaults to `False`):
            Whether vLLM leaves the device's memory between refreshes in `"colocate"` mode.

        > Deprecated parameters

        validation_batch_size (`int`, *optional*):
            The former name of `per_device_validation_batch_size`.
        mask (`str`, *optional*):
            The former name of `online_mask`.
    """

    def __post_init__(self):
        set_quiet_defaults(self)
        SFTConfig.__post_init__(self)
        SFTSelfRefineSettings.__post_init__(self)
        if self.online_ratio > 0:
            if self.packing:
                raise ValueError(
                    "`packing` fixes the rows before training, and `online_ratio` changes them; use `packing=False`; "
                    "`padding_free=True` works"
                )
            if self.loss_type == "dft":
                raise ValueError("`loss_type='dft'` rescales each token, importance ratios whole answers; use `'nll'`")

    def to_dict(self) -> dict[str, Any]:
        """As [`~transformers.TrainingArguments.to_dict`], without tokens in nested settings either; a callable `validation_loss`
        becomes its name."""
        values = without_tokens(super().to_dict())
        values["validation_loss"] = loss_name(self.validation_loss)
        return values


def loss_name(loss: str | Callable) -> str:
    """`"sft"`, `"dpo"` or the name of a callable."""
    return loss if isinstance(loss, str) else getattr(loss, "__qualname__", type(loss).__qualname__)


def complete_arguments(
    args: TrainingArguments | None, model
) -> tuple[SFTConfig, BilevelSFTSelfRefineConfig, str | Callable]:
    """Arguments of [`BilevelSFTSelfRefineTrainer`], completed.

    Returns:
        `tuple`: what [`~trl.SFTTrainer`] is given where nothing is weighted; the same with our fields at their defaults
        where they were not there; and the validation loss, whose name alone is in the others: arguments are saved with the
        model, functions are not.
    """
    if args is None:
        model_name = model if isinstance(model, str) else get_config_model_id(model.config)
        args = BilevelSFTSelfRefineConfig(f"{model_name.split('/')[-1]}-SFT")
    given = args
    if not isinstance(args, BilevelSFTSelfRefineConfig):
        args = BilevelSFTSelfRefineConfig.from_training_arguments(args)
        given = given if isinstance(given, SFTConfig) else args
    validation_loss = args.validation_loss
    if callable(validation_loss):
        given = args = copy.copy(args)
        args.validation_loss = loss_name(validation_loss)
    return given, args, validation_loss
