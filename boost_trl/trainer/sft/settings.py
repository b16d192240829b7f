"""Fields that [`BilevelSFTSelfRefineConfig`] adds to TRL's `SFTConfig`, checked without any heavy import, so that a
mistake on the command line is reported before torch is loaded.
"""

from dataclasses import dataclass, field

from boost_trl.selection.choices import LEVELS, RESPONSE_WEIGHTINGS
from boost_trl.trainer.common.field_types import check_at_least_one, check_field_types, check_positive
from boost_trl.trainer.common.renamed_fields import take_former_name
from boost_trl.trainer.row_weights.settings import SelectorSettings


@dataclass
class SFTSelfRefineSettings(SelectorSettings):
    """The fields of [`BilevelSFTSelfRefineConfig`] that are its own.

    Raises:
        ValueError: naming the field whose value cannot be used.
    """

    selector_baseline: str | None = field(
        default="token",
        metadata={
            "help": "'token' measures a row's loss against a running mean loss of each of its tokens; 'none' uses the raw "
            "loss, as in the papers.",
            "choices": ["token", "none"],
        },
    )
    selection_loss: str = field(
        default="mean",
        metadata={
            "help": "A row's loss as the selector sees it: 'mean' or 'sum' over its tokens.",
            "choices": ["mean", "sum"],
        },
    )
    validation_loss: str = field(
        default="sft",
        metadata={
            "help": "Loss on the validation set: 'sft', or 'dpo' for rows with prompt, chosen and rejected.",
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
            "help": "Whether to send the model's answers of each refresh as a table to those of tensorboard, wandb, trackio and comet "
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
        SelectorSettings.__post_init__(self)
        check_field_types(self, SFTSelfRefineSettings, infinite=("selector_max_step",), free=("validation_loss",))
        check_at_least_one(
            self,
            (
                *("num_generations", "generation_interval", "max_generation_length", "generation_batch_size"),
                *("num_examples", "num_completions_to_print", "vllm_max_model_length"),
                *("vllm_group_port", "vllm_tensor_parallel_size"),
            ),
        )
        check_positive(self, ("dpo_beta", "generation_temperature", "importance_sampling_cap"))
        if not 0 < self.vllm_gpu_memory_utilization <= 1:
            raise ValueError(
                f"`vllm_gpu_memory_utilization` must be in (0, 1], got {self.vllm_gpu_memory_utilization}"
            )
        self._check_online()
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
