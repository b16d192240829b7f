"""Fields that [`BilevelOfflineRLConfig`] adds to `TrainingArguments`, checked without any heavy import, so that a
mistake on the command line is reported before torch is loaded.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any

from boost_trl.trainer.common.field_types import check_at_least_one, check_field_types, check_positive
from boost_trl.trainer.common.trainer_numbers import check_trainer_numbers


# Below this CQL term softmax(Q) is no longer close to a language model.
SMALL_CQL_WEIGHT = 1.0


@dataclass
class OfflineRLSettings:
    """The fields of [`BilevelOfflineRLConfig`] that are its own or have their own default.

    Raises:
        ValueError: naming the field whose value cannot be used.
    """

    learning_rate: float = field(
        default=1e-4, metadata={"help": "Learning rate of the policies (heads and backbone)."}
    )
    max_steps: int = field(
        default=-1,
        metadata={
            "help": "Policy updates in all; -1: as many as `num_train_epochs` gives. With method 'boost' at least "
            "`auxiliary_steps` + `primary_steps`, of which a multiple ends with a whole outer iteration."
        },
    )

    algorithm: str = field(
        default="mc",
        metadata={
            "help": "Offline RL loss: 'mc' (Monte-Carlo returns) or 'ilql' (implicit language Q-learning).",
            "choices": ["mc", "ilql"],
        },
    )
    method: str = field(
        default="boost",
        metadata={
            "help": "'boost': bilevel schedule with an auxiliary policy, needs a validation dataset. 'validated': rows "
            "are scored before training by what a validation dataset teaches, drawn by weight and mixed with its rows. "
            "'vanilla': plain offline RL on the training dataset, no validation dataset.",
            "choices": ["boost", "validated", "vanilla"],
        },
    )
    reweighting: str = field(
        default="learned",
        metadata={
            "help": "'learned' weights, or 'uniform': the same training with equal weights (control).",
            "choices": ["learned", "uniform"],
        },
    )
    weight_level: str = field(
        default="trajectory",
        metadata={
            "help": "What has a weight of its own: a whole 'trajectory' (the paper), or each assistant 'turn' of it, for "
            "dialogues in which good and bad turns stand side by side.",
            "choices": ["trajectory", "turn"],
        },
    )

    auxiliary_policy: str = field(
        default="heads",
        metadata={
            "help": "What the auxiliary policy ψ has of its own: value 'heads' on a backbone shared with the primary "
            "policy (the paper), or a LoRA 'adapter' as well, which takes a forward pass per policy in phase 4.",
            "choices": ["heads", "adapter"],
        },
    )

    max_length: int = field(
        default=1024, metadata={"help": "Tokens per trajectory; whole turns are dropped from the end beyond it."}
    )
    discount: float = field(default=1.0, metadata={"help": "Discount γ in [0, 1]."})
    discount_level: str = field(
        default="turn",
        metadata={
            "help": "What γ is applied to once: a 'turn', or an action 'token' (LMRL-Gym).",
            "choices": ["turn", "token"],
        },
    )

    cql_weight: float = field(
        default=10.0, metadata={"help": "Weight of the conservative term logsumexp Q(s,·) - Q(s,a) on action tokens."}
    )
    expectile: float = field(default=0.7, metadata={"help": "ILQL: expectile τ of the value loss, in (0, 1)."})
    target_update_rate: float | None = field(
        default=0.005,
        metadata={
            "help": "ILQL: Polyak rate of the target Q heads per optimizer step; none uses the Q heads themselves."
        },
    )
    half_squared_error: bool = field(
        default=False, metadata={"help": "Put a factor 1/2 before squared errors, as LMRL-Gym does."}
    )
    loss_normalization: str = field(
        default="trajectory_mean",
        metadata={
            "help": "A trajectory's loss: mean over its action tokens ('trajectory_mean'), its share of the batch's "
            "token mean ('token_mean', as LMRL-Gym and trlX), or 'sum'.",
            "choices": ["trajectory_mean", "token_mean", "sum"],
        },
    )
    normalize_returns: bool = field(
        default=True,
        metadata={
            "help": "Scale (for MC also shift) returns inside the loss by constants fitted on the training set and "
            "saved with the heads; logged Q, V and rewards are in the environment's units."
        },
    )
    return_shift: float | None = field(
        default=None,
        metadata={
            "help": "Use this shift of returns instead of a fitted one, to compare runs on other rows (MC only)."
        },
    )
    return_scale: float | None = field(
        default=None,
        metadata={"help": "Use this scale of returns instead of a fitted one, to compare runs on other rows."},
    )

    value_head_bias: str | None = field(
        default=None,
        metadata={
            "help": "Bias of a Q head: one number ('scalar') or one per vocabulary entry ('token'); by default as the LM's "
            "output head, which in most models has none and gives 'scalar'.",
            "choices": ["scalar", "token"],
        },
    )
    value_head_init: str = field(
        default="lm_head",
        metadata={
            "help": "'lm_head': Q starts from the LM's centred output matrix, so softmax(Q) starts as the LM's policy (as near "
            "as a linear head comes where logits are soft-capped); 'random': small random weights.",
            "choices": ["lm_head", "random"],
        },
    )
    value_head_rank: int | None = field(
        default=None, metadata={"help": "Replace each |V| x d Q matrix by a product of this rank."}
    )

    auxiliary_steps: int = field(
        default=20, metadata={"help": "K_ψ: updates of the auxiliary policy per outer iteration."}
    )
    primary_steps: int = field(
        default=20, metadata={"help": "K_θ: updates of the primary policy per outer iteration."}
    )
    reweighting_steps: int = field(
        default=1, metadata={"help": "K_φ: updates of the reweighting head per outer iteration."}
    )
    penalty_alpha_init: float = field(
        default=1.0, metadata={"help": "Penalty strength α at the start of training (phases 3 and 4)."}
    )
    penalty_alpha_final: float | None = field(
        default=None, metadata={"help": "α at the end of its ramp; defaults to max(penalty_alpha_init, 1)."}
    )
    penalty_alpha_ramp: float = field(
        default=0.5,
        metadata={"help": "Share of training over which α moves linearly from its first to its last value."},
    )
    reweighting_alpha: float | None = field(
        default=None, metadata={"help": "A constant α for phase 4 alone; by default phase 4 uses the scheduled α."}
    )
    per_device_validation_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Validation trajectories per device and micro-batch of phase 3; by default as many as training "
            "trajectories."
        },
    )
    validation_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "Deprecated, use `per_device_validation_batch_size`: validation trajectories per phase-3 optimizer step "
            "over all processes."
        },
    )

    reweighting_learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the reweighting head; defaults to 0.1 x learning_rate."}
    )
    reweighting_head_depth: int = field(default=2, metadata={"help": "Linear layers of the reweighting head."})
    reweighting_head_size: int = field(default=128, metadata={"help": "Width of its hidden layers."})
    standardize_embeddings: bool = field(
        default=True, metadata={"help": "Standardise embeddings per dimension over the training set."}
    )

    validation_share: float = field(
        default=0.2,
        metadata={
            "help": "method='validated': share of every optimizer batch that is drawn from validation, in [0, 1)."
        },
    )
    finish_share: float | None = field(
        default=0.0,
        metadata={
            "help": "method='validated': this last share of the policy updates, in [0, 1), sees validation rows only. None: "
            "`guard` chooses between 0 and 0.3 where rows are scored; 0 elsewhere."
        },
    )
    target_effective_fraction: float = field(
        default=0.4,
        metadata={
            "help": "method='validated': effective sample size of the weights over the number of rows, in (0, 1]; with "
            "`guard` one candidate among others."
        },
    )
    score_validation: str = field(
        default="all",
        metadata={
            "help": "method='validated': validation rows that scores are learned from, 'all' or the half with the highest "
            "returns ('high_return'); with `guard` one candidate among others.",
            "choices": ["high_return", "all"],
        },
    )
    score_steps: int | None = field(
        default=None,
        metadata={
            "help": "method='validated': updates of each fit of value heads for scoring and for cross-validation; they are no "
            "policy updates. θ, the heads that learn from validation, takes this number over 64, 16, 4 or 1: a search "
            "finds which, by fits of its own (the report's `primary_steps`). By default 400, or as many as keep all of it "
            "within about three times the cost of the training that follows, 16 at least."
        },
    )
    score_batch_size: int = field(default=64, metadata={"help": "Trajectories per update of these fits."})
    score_learning_rate: float | None = field(
        default=None,
        metadata={
            "help": "First learning rate of these fits (Adam, falling to 0); by default 0.5 over the mean L1 norm of the "
            "hidden states, so that the first step moves a Q value by at most about 0.5."
        },
    )
    guard: bool = field(
        default=True,
        metadata={
            "help": "method='validated': choose between several ways to weigh the rows, uniform weights among them, and "
            "to finish, by cross-validation on the validation dataset."
        },
    )
    guard_folds: int = field(
        default=5,
        metadata={"help": "Folds of that cross-validation; fewer where a fold would have less than two rows."},
    )

    train_backbone: bool = field(
        default=True,
        metadata={
            "help": "Train the LM (or its adapter) with the heads. False freezes it: hidden states are then computed "
            "once and memory-mapped, and training runs at heads-only speed."
        },
    )
    states_dtype: str = field(
        default="bfloat16",
        metadata={
            "help": "Frozen backbone: type of the stored hidden states, or 'float32'.",
            "choices": ["bfloat16", "float32"],
        },
    )
    cache_dir: str | None = field(
        default=None,
        metadata={
            "help": "Where embeddings and hidden states are cached; by default in $BOOST_TRL_CACHE, or else in the "
            "Hugging Face assets cache."
        },
    )
    model_init_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Keyword arguments of `from_pretrained` when the model is given by name (JSON)."},
    )

    average_last: float = field(
        default=0.25,
        metadata={
            "help": "Average the trained parameters over this last share of the policy updates; 0 turns it off."
        },
    )
    beta: float = field(default=1.0, metadata={"help": "β of the extracted policy; acts on the normalised Q."})
    policy_prior: str = field(
        default="none",
        metadata={
            "help": "Extracted policy: 'none' softmax(β Q) (the paper), 'lm' π_ref · exp(β (Q - V)) (LMRL, ILQL).",
            "choices": ["none", "lm"],
        },
    )
    reference_model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "policy_prior='lm' with a fully trained backbone: the unmodified LM to use as π_ref."},
    )
    eval_games: int = field(
        default=64, metadata={"help": "Games that `evaluate()` plays when the trainer has an environment."}
    )
    max_new_tokens: int = field(default=64, metadata={"help": "Length limit of one action in those games."})
    log_completions: bool = field(
        default=False,
        metadata={
            "help": "Whether to send those games as a table to those of tensorboard, wandb, trackio and comet that `report_to` names."
        },
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
        self._check_values()
        self._check_validation_batch_size()
        if self.penalty_alpha_final is None:
            self.penalty_alpha_final = max(self.penalty_alpha_init, 1.0)
        if self.reweighting_learning_rate is None:
            self.reweighting_learning_rate = 0.1 * self.learning_rate
        self._check_combinations()

    def _check_values(self) -> None:
        """Every field by itself."""
        check_field_types(self, OfflineRLSettings)
        if isinstance(self.model_init_kwargs, str) and not self.model_init_kwargs.startswith("{"):
            raise ValueError(f"`model_init_kwargs` must be a dict, or one as JSON, got {self.model_init_kwargs!r}")
        for name in ("discount", "penalty_alpha_ramp", "average_last"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {getattr(self, name)}")
        for name in ("validation_share", "finish_share"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}")
        if not 0 < self.target_effective_fraction <= 1:
            raise ValueError(f"`target_effective_fraction` must lie in (0, 1], got {self.target_effective_fraction}")
        if self.guard_folds < 2:
            raise ValueError(f"`guard_folds` must be at least 2, got {self.guard_folds}")
        if self.score_learning_rate is not None and self.score_learning_rate <= 0:
            raise ValueError(f"`score_learning_rate` must be positive, or none, got {self.score_learning_rate}")
        if not 0 < self.expectile < 1:
            raise ValueError(f"`expectile` must lie in (0, 1), got {self.expectile}")
        if self.target_update_rate is not None and not 0 < self.target_update_rate <= 1:
            raise ValueError(f"`target_update_rate` must lie in (0, 1], or be none, got {self.target_update_rate}")
        check_at_least_one(
            self,
            (
                *("auxiliary_steps", "primary_steps", "max_length", "reweighting_head_depth", "reweighting_head_size"),
                *("score_steps", "score_batch_size", "eval_games", "max_new_tokens"),
            ),
        )
        for name in (
            "cql_weight",
            "penalty_alpha_init",
            "penalty_alpha_final",
            "reweighting_alpha",
            "reweighting_steps",
        ):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}")
        check_positive(self, ("beta", "return_scale", "reweighting_learning_rate", "value_head_rank"))

    def _check_combinations(self) -> None:
        """Check the fields that depend on each other."""
        if self.return_shift and self.algorithm == "ilql":
            raise ValueError("`return_shift` has no meaning for ILQL, whose V is 0 after the end of an episode")
        if self.policy_prior == "none" and self.cql_weight < SMALL_CQL_WEIGHT:
            warnings.warn(
                f"with `cql_weight={self.cql_weight:g}` and `policy_prior='none'` the policy softmax(β Q) has nothing that "
                "ties it to language; raise `cql_weight` (the paper: 10) or set `policy_prior='lm'`"
            )
        if self.scores_rows and self.cql_weight == 0:
            raise ValueError(
                "`method='validated'` scores rows by the policy part of the loss, which `cql_weight=0` does not train: "
                "raise it, or choose `reweighting='uniform'`"
            )
        if self.auxiliary_policy == "adapter" and not self.is_bilevel:
            raise ValueError(
                f"`method={self.method!r}` has no auxiliary policy to give an adapter; leave `auxiliary_policy` at 'heads'"
            )
        if self.learns_weights:
            largest = max(self.penalty_alpha_init, self.penalty_alpha_final or 0.0)
            if (self.reweighting_alpha if self.reweighting_alpha is not None else largest) == 0:
                raise ValueError(
                    "with `reweighting='learned'` phase 4 needs some α, or the weights never move: raise "
                    "`penalty_alpha_final` or `reweighting_alpha`, or choose `reweighting='uniform'`"
                )
            if self.reweighting_steps == 0:
                raise ValueError("`reweighting_steps` is 0, so the weights never move; choose `reweighting='uniform'`")

    def _check_validation_batch_size(self) -> None:
        check_positive(self, ("per_device_validation_batch_size", "validation_batch_size"))
        if self.validation_batch_size is None:
            return
        warnings.warn(
            "`validation_batch_size` counts rows per optimizer step over all processes and will be removed in the next "
            "version: use `per_device_validation_batch_size`, rows per device and micro-batch",
            FutureWarning,
            stacklevel=5,
        )
        if self.per_device_validation_batch_size is not None:
            raise ValueError(
                "`validation_batch_size` and `per_device_validation_batch_size` are both given; keep the second"
            )

    def validation_rows(self, num_micro_batches: int, num_training_rows: int) -> int:
        """Validation rows of an optimizer step in phase 3.

        Args:
            num_micro_batches (`int`): of the step, over all processes.
            num_training_rows (`int`): of the step, over all processes.
        """
        if self.per_device_validation_batch_size is not None:
            return self.per_device_validation_batch_size * num_micro_batches
        return self.validation_batch_size or num_training_rows

    @property
    def is_bilevel(self) -> bool:
        """Whether there is an auxiliary policy, and training goes through the phases of the bilevel schedule."""
        return self.method == "boost"

    @property
    def uses_validation(self) -> bool:
        """Whether training needs a validation dataset."""
        return self.method != "vanilla"

    @property
    def learns_weights(self) -> bool:
        """Whether a reweighting head is trained along with the policies."""
        return self.method == "boost" and self.reweighting == "learned"

    @property
    def scores_rows(self) -> bool:
        """Whether rows are scored and weighed before training."""
        return self.method == "validated" and self.reweighting == "learned"
