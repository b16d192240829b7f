"""Fields that every trainer with learned row weights adds to its TRL configuration, checked without any heavy import, so that a
mistake on the command line is reported before torch is loaded.
"""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Self

from boost_trl.selection.choices import OPTIMIZERS, SELECTORS, WEIGHT_SCALES, check_selector_settings
from boost_trl.selection.penalty_schedule import PenaltySchedule
from boost_trl.trainer.common.field_types import check_at_least_one, check_field_types, check_positive
from boost_trl.trainer.common.trainer_numbers import check_trainer_numbers


if TYPE_CHECKING:
    from transformers import TrainingArguments

    from boost_trl.selection import Selector


@dataclass
class SelectorSettings:
    """Weighting of the pool's rows, and what the pool counts beside the validation set.

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
    selector_loss_at: str = field(
        default="current",
        metadata={
            "help": "Whether the selector sees the losses before ('current') or after ('updated', one more forward) the "
            "model's step.",
            "choices": ["current", "updated"],
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
            "help": "Whether 'validated' chooses between its weights and equal ones by cross-validation: by where trusted rows rank "
            "that had no part in the scores and, if that does not decide, by short trainings with one half of the validation set, judged "
            "by the other."
        },
    )
    selection_rounds: int = field(
        default=3,
        metadata={
            "help": "How often 'validated' scores the pool: before training, and as each of the next epochs begins, with the model "
            "as it has been trained so far, if it has learned more than the rows that it was trained on."
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
    per_device_validation_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Validation rows per device and micro-batch. Defaults to `per_device_train_batch_size`.",
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
    log_weights: bool = field(
        default=False,
        metadata={
            "help": "Whether to send the rows of largest and smallest weight, with their first words, as a table and all weights as a "
            "picture to those of tensorboard, wandb, trackio and comet that `report_to` names, at each evaluation and at the end."
        },
    )

    def __post_init__(self):
        check_trainer_numbers(self)
        check_field_types(self, SelectorSettings, infinite=("selector_max_step",))
        check_at_least_one(self, ("bmo_refresh_steps", "selection_rounds", "per_device_validation_batch_size"))
        check_positive(self, ("adaptation_learning_rate", "target_effective_fraction"))
        check_selector_settings(self)
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

    @classmethod
    def from_training_arguments(cls, args: "TrainingArguments") -> Self:
        """The same settings as `args`, of any class of training arguments, with our own fields at their defaults. What
        a subclass has added stays as an attribute.
        """
        known = {f.name for f in fields(cls)}
        values = {f.name: getattr(args, f.name) for f in fields(args) if f.init}
        config = cls(**{name: value for name, value in values.items() if name in known})
        for name in values.keys() - known:
            setattr(config, name, values[name])
        return config

    def make_selector(self, num_examples: int, dataset_fingerprint: str | None) -> "Selector":
        """The selector of these settings over N rows.

        Raises:
            ValueError: for a setting out of its range.
        """
        from boost_trl.selection import Selector

        return Selector(
            num_examples,
            selector=self.selector,
            selector_optimizer=self.selector_optimizer,
            selector_learning_rate=self.selector_learning_rate,
            selector_max_step=self.selector_max_step,
            bmo_tau=self.bmo_tau,
            keep_fraction=self.keep_fraction,
            rank_refresh_steps=self.rank_refresh_steps,
            weight_scale=self.weight_scale,
            min_effective_sample_size=self.min_effective_sample_size,
            dataset_fingerprint=dataset_fingerprint,
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
