"""Fields that [`BilevelSFTSelfRefineConfig`] adds to TRL's `SFTConfig`, checked without any heavy import, so that a
mistake on the command line is reported before torch is loaded.
"""

import math
from dataclasses import dataclass, field
from numbers import Real

from boost_trl.selection.choices import (
    LEVELS,
    OPTIMIZERS,
    RESPONSE_WEIGHTINGS,
    SELECTORS,
    WEIGHT_SCALES,
    check_selector_settings,
)
from boost_trl.selection.penalty_schedule import PenaltySchedule
from boost_trl.trainer.common.renamed_fields import take_former_name
from boost_trl.trainer.common.trainer_numbers import check_trainer_numbers, check_whole


_WHOLE_NUMBERS = (
    "bmo_refresh_steps",
    "selection_rounds",
    "num_generations",
    "generation_interval",
    "max_generation_length",
    "generation_batch_size",
    "vllm_group_port",
    "vllm_tensor_parallel_size",
)
_WHOLE_NUMBERS_OR_NONE = (
    "per_device_validation_batch_size",
    "rank_refresh_steps",
    "num_examples",
    "num_completions_to_print",
    "vllm_max_model_length",
)
_NUMBERS = (
    "bmo_tau",
    "keep_fraction",
    "min_effective_sample_size",
    "rho_increment",
    "target_effective_fraction",
    "dpo_beta",
    "confidence_share",
    "online_ratio",
    "generation_temperature",
    "vllm_gpu_memory_utilization",
)
_NUMBERS_OR_NONE = (
    "rho_init",
    "selector_learning_rate",
    "adaptation_learning_rate",
    "importance_sampling_cap",
)
_POSITIVE = (
    *("dpo_beta", "generation_temperature", "importance_sampling_cap"),
    *("adaptation_learning_rate", "target_effective_fraction"),
)


@dataclass
class SFTSelfRefineSettings:
    """The fields of [`BilevelSFTSelfRefineConfig`] that are its own.

    Raises:
        ValueError: naming the field whose value cannot be used.
    """

    selector: str = field(
        default="validated",
        metadata={
            "help": "How example weights are learned: 'validated' (before training, from a few updates on the validation set), "
            "'rank', 'bds', 'bmo', 'bmo_exact', 'mixing' (no weights, fixed rho) or 'uniform' (no weights, the schedule of "
            "rho).",
            "choices": list(SELECTORS),
        },
    )
    selector_optimizer: str = field(
        default="sparse",
        metadata={
            "help": "Optimizer of the selector's logits for 'bds': 'sparse' moves visited rows only, 'adam' and 'sgd' "
            "move all rows.",
            "choices": list(OPTIMIZERS),
        },
    )
    selector_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Step size of the selector's logits. Defaults to 1.0 (sparse, sgd), 1e-4 (adam), 0.5 (bmo)."
        },
    )
    selector_max_step: float = field(
        default=1.0,
        metadata={"help": "Largest change of one logit in one step of the sparse optimizer."},
    )
    selector_baseline: str | None = field(
        default="token",
        metadata={
            "help": "'token' measures a row's loss against a running mean loss of each of its tokens; 'none' uses the raw "
            "loss, as in the papers.",
            "choices": ["token", "none"],
        },
    )
    selector_loss_at: str = field(
        default="current",
        metadata={
            "help": "Whether the selector sees the losses before ('current') or after ('updated', one more forward) the "
            "model's step.",
            "choices": ["current", "updated"],
        },
    )
    selection_loss: str = field(
        default="mean",
        metadata={
            "help": "A row's loss as the selector sees it: 'mean' or 'sum' over its tokens.",
            "choices": ["mean", "sum"],
        },
    )
    weight_scale: str = field(
        default="mean_one",
        metadata={
            "help": "'mean_one': weights of mean one over the rows. 'simplex': weights of sum one.",
            "choices": list(WEIGHT_SCALES),
        },
    )
    bmo_tau: float = field(default=1.0, metadata={"help": "Temperature of 'bmo' and 'bmo_exact'."})
    bmo_refresh_steps: int = field(
        default=100,
        metadata={"help": "Optimizer steps between two passes of 'bmo_exact' over the whole pool."},
    )
    keep_fraction: float = field(
        default=0.3,
        metadata={
            "help": "Share of rows that 'rank' keeps at the end: about the share of good rows, see `selector/trusted_share` "
            "in the logs."
        },
    )
    rank_refresh_steps: int | None = field(
        default=None,
        metadata={
            "help": "Optimizer steps between two rankings of 'rank'. Defaults to a twentieth of an epoch.",
        },
    )
    target_effective_fraction: float = field(
        default=0.1,
        metadata={"help": "Effective sample size of the weights of 'validated' over the number of rows, in (0, 1]."},
    )
    selection_guard: bool = field(
        default=True,
        metadata={
            "help": "Whether 'validated' chooses between its weights and equal ones by cross-validation: short trainings with one "
            "half of the validation set, judged by the other."
        },
    )
    selection_rounds: int = field(
        default=3,
        metadata={
            "help": "How often 'validated' scores the pool: before training, and as each of the next epochs begins, with the model "
            "as it has been trained so far."
        },
    )
    adaptation_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "Learning rate of the updates on the validation set from which 'validated' scores. Defaults to "
            "`learning_rate`."
        },
    )
    min_effective_sample_size: float = field(
        default=0.01,
        metadata={"help": "Warn when the effective sample size of the weights falls below this share of the rows."},
    )
    rho_init: float | None = field(
        default=None,
        metadata={
            "help": "The pool's share of the loss in the first epoch; throughout for 'mixing' and 'validated'. Defaults to 0.1, "
            "for 'validated' to 0.8."
        },
    )
    rho_increment: float = field(default=0.1, metadata={"help": "Added to rho at each new epoch."})
    normalize_penalty: bool = field(
        default=False,
        metadata={"help": "Divide the loss by 1 + gamma, so that the two levels' coefficients sum to one."},
    )
    validation_loss: str = field(
        default="sft",
        metadata={
            "help": "Loss on the validation set: 'sft', or 'dpo' for rows with prompt, chosen and rejected.",
        },
    )
    per_device_validation_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Validation rows per device and micro-batch. Defaults to `per_device_train_batch_size`.",
        },
    )
    validation_batch_size: int | None = field(
        default=None,
        metadata={"help": "Deprecated: the former name of `per_device_validation_batch_size`."},
    )
    dpo_beta: float = field(default=0.1, metadata={"help": "Beta of the 'dpo' validation loss."})
    confidence_share: float = field(
        default=0.2,
        metadata={
            "help": "Share of the validation set, at most 64 rows, that is kept out of training where there is no evaluation "
            "set, to measure how far the weights can be trusted. 0: do not measure."
        },
    )
    weight_column: str | None = field(
        default=None,
        metadata={
            "help": "Column of fixed example weights. Rows of weight 0 are left out. None uses no column.",
        },
    )
    label_column: str | None = field(
        default=None,
        metadata={"help": "Boolean column, true for good rows: the AUC of the weights against it is logged."},
    )
    example_id_column: str | None = field(
        default=None,
        metadata={"help": "Streaming data: column of row numbers from 0 to `num_examples` - 1."},
    )
    num_examples: int | None = field(
        default=None,
        metadata={
            "help": "Streaming data: number of rows, needed with `example_id_column`. Without it rho does not grow."
        },
    )
    source_column: str = field(
        default="source",
        metadata={"help": "Streaming data without row numbers: column by which rows share a weight."},
    )
    source_names: list[str] | None = field(
        default=None,
        metadata={"help": "Streaming data without row numbers: all values of `source_column`."},
    )
    online_ratio: float = field(
        default=0.0,
        metadata={"help": "Share of the training rows whose answers are replaced by the model's own, in [0, 1)."},
    )
    num_generations: int = field(default=1, metadata={"help": "The model's answers to each such question."})
    generation_interval: int = field(
        default=500,
        metadata={"help": "Optimizer steps between two refreshes of the model's answers."},
    )
    online_mask: str = field(
        default="random",
        metadata={
            "help": "Rows with the model's answers: 'random' ones, or at each refresh ('dynamic') those of lowest weight.",
            "choices": ["random", "dynamic"],
        },
    )
    mask: str | None = field(
        default=None,
        metadata={"help": "Deprecated: the former name of `online_mask`."},
    )
    generation_temperature: float = field(
        default=0.8,
        metadata={"help": "Sampling temperature of the model's answers. Losses and ratios are at temperature 1."},
    )
    max_generation_length: int = field(default=512, metadata={"help": "Longest answer of the model, in tokens."})
    generation_batch_size: int = field(
        default=16,
        metadata={"help": "Answers per device that are generated at once."},
    )
    importance_sampling_level: str = field(
        default="sequence",
        metadata={
            "help": "Importance ratio of a 'sequence', of each 'token', or the sequence's 'geometric' mean.",
            "choices": list(LEVELS),
        },
    )
    importance_sampling_cap: float | None = field(
        default=3.0,
        metadata={"help": "Largest importance ratio. None: no limit."},
    )
    response_weighting: str = field(
        default="importance",
        metadata={
            "help": "What multiplies an answer's loss: its 'importance' ratio, a 'softmax' over the answers to one "
            "question, or 'none'.",
            "choices": list(RESPONSE_WEIGHTINGS),
        },
    )
    log_completions: bool = field(
        default=False,
        metadata={
            "help": "Whether to send the model's answers of each refresh as a table to those of wandb, trackio and comet "
            "that `report_to` names, and to print them if `rich` is installed."
        },
    )
    num_completions_to_print: int | None = field(
        default=None,
        metadata={"help": "Largest number of answers in such a table. If `None`, all are in it."},
    )
    use_vllm: bool = field(
        default=False,
        metadata={
            "help": "Whether vLLM generates the model's answers instead of transformers. Requires `vllm` to be installed."
        },
    )
    vllm_mode: str = field(
        default="colocate",
        metadata={
            "help": "'colocate': vLLM runs in the training processes, on the same devices. 'server': in a separate "
            "server, started with `vllm serve`.",
            "choices": ["colocate", "server"],
        },
    )
    vllm_server_base_url: str | None = field(
        default=None,
        metadata={"help": "URL of the vLLM server. Defaults to 'http://0.0.0.0:8000'."},
    )
    vllm_group_port: int = field(
        default=51216,
        metadata={"help": "Port by which the vLLM server receives weights. Change it only if it is occupied."},
    )
    vllm_gpu_memory_utilization: float = field(
        default=0.3,
        metadata={"help": "Share of the device's memory for vLLM in 'colocate' mode."},
    )
    vllm_max_model_length: int | None = field(
        default=None,
        metadata={"help": "Longest question and answer together. Inferred from the model's config if `None`."},
    )
    vllm_tensor_parallel_size: int = field(
        default=1,
        metadata={"help": "Devices that share one vLLM engine in 'colocate' mode."},
    )
    vllm_enable_sleep_mode: bool = field(
        default=False,
        metadata={"help": "Whether vLLM leaves the device's memory between refreshes in 'colocate' mode."},
    )

    def __post_init__(self):
        take_former_name(self, "validation_batch_size", "per_device_validation_batch_size")
        take_former_name(self, "mask", "online_mask")
        check_trainer_numbers(self)
        for name in (
            "selector",
            "selector_optimizer",
            "selector_loss_at",
            "selection_loss",
            "weight_scale",
            "online_mask",
            "importance_sampling_level",
            "response_weighting",
            "vllm_mode",
        ):
            _check_choice(self, name)
        self._check_numbers()
        check_selector_settings(self)
        self._check_online()
        if self.selector_baseline is not None:
            _check_choice(self, "selector_baseline")
            if self.selector_baseline == "none":
                self.selector_baseline = None
        if not callable(self.validation_loss) and self.validation_loss not in ("sft", "dpo"):
            raise ValueError(
                f"`validation_loss` must be 'sft', 'dpo' or, from Python, a callable, got {self.validation_loss!r}"
            )
        if self.selector_baseline is not None and self.selection_loss == "sum":
            raise ValueError(
                "`selector_baseline='token'` (the default) needs `selection_loss='mean'`: it is a mean loss per token; set "
                "`selector_baseline='none'` for sums"
            )
        if not 0 <= self.confidence_share < 1:
            raise ValueError(f"`confidence_share` must be in [0, 1), got {self.confidence_share}")
        if self.target_effective_fraction > 1:
            raise ValueError(f"`target_effective_fraction` must be in (0, 1], got {self.target_effective_fraction}")
        if self.selector == "validated" and self.weight_scale == "simplex":
            raise ValueError("selector='validated' draws rows by weight, which has no scale: leave `weight_scale` out")
        if self.selector == "bmo" and self.selector_loss_at == "updated":
            raise ValueError(
                "selector='bmo' weights a batch by its losses before the step: `selector_loss_at='current'`"
            )
        # Only ρ in the first epoch: without a validation set training may last any number of epochs.
        self.penalty_schedule(1)

    def _check_numbers(self) -> None:
        for name in _WHOLE_NUMBERS:
            check_whole(name, getattr(self, name))
        for name in _NUMBERS:
            _check_real(name, getattr(self, name))
        for names, check in ((_WHOLE_NUMBERS_OR_NONE, check_whole), (_NUMBERS_OR_NONE, _check_real)):
            for name in names:
                if getattr(self, name) is not None:
                    check(name, getattr(self, name), " or None")
        _check_real("selector_max_step", self.selector_max_step, infinite=True)
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"`{name}` must be positive, got {value}")

    def _check_online(self) -> None:
        if not 0 <= self.online_ratio < 1:
            raise ValueError(f"`online_ratio` must be in [0, 1), got {self.online_ratio}")
        if self.online_ratio == 0:
            if self.num_generations > 1 or self.online_mask == "dynamic" or self.use_vllm:
                raise ValueError(
                    f"num_generations={self.num_generations}, online_mask='{self.online_mask}' and use_vllm={self.use_vllm} have no "
                    "effect with `online_ratio=0`; set `online_ratio`, or leave them out"
                )
            return
        if self.selector == "bmo_exact":
            raise ValueError(
                "selector='bmo_exact' needs the losses of all rows, and `online_ratio` answers only the questions that "
                "are about to be visited; use 'bmo'"
            )
        if self.online_mask == "dynamic" and self.selector in ("mixing", "uniform"):
            raise ValueError(
                f"online_mask='dynamic' masks the rows of lowest weight, and selector='{self.selector}' weighs all the same; "
                "use `online_mask='random'`"
            )

    def penalty_schedule(self, num_epochs: float) -> PenaltySchedule:
        """ρ and γ over `num_epochs` epochs.

        Raises:
            ValueError: if ρ leaves [0, 1), or [0, 1] with `selector="mixing"`.
        """
        default = 0.8 if self.selector == "validated" else 0.1
        return PenaltySchedule(
            num_epochs,
            rho_init=default if self.rho_init is None else self.rho_init,
            rho_increment=self.rho_increment,
            mixing=self.selector in ("mixing", "validated"),
            normalize=self.normalize_penalty,
        )


def _check_choice(settings: SFTSelfRefineSettings, name: str) -> None:
    choices = type(settings).__dataclass_fields__[name].metadata["choices"]
    value = getattr(settings, name)
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}")


def _check_real(name: str, value, otherwise: str = "", infinite: bool = False) -> None:
    valid = isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
    if not valid or (math.isinf(value) and not infinite):
        kind = "a number" if infinite else "a finite number"
        raise ValueError(f"`{name}` must be {kind}{otherwise}, got {value!r}")
