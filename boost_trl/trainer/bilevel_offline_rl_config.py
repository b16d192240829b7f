"""Configuration of [`BilevelOfflineRLTrainer`]."""

from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from boost_trl.hidden_tokens import without_tokens
from boost_trl.trainer.common.quiet_defaults import set_quiet_defaults
from boost_trl.trainer.offline_rl.settings import OfflineRLSettings


# What a resumed run may change: where the model comes from and how it is used, but not what it is trained for. `average_last`
# has its own rule.
FREE_ON_RESUME = (
    *("model_init_kwargs", "cache_dir", "average_last", "beta", "policy_prior", "reference_model_name_or_path"),
    *("eval_games", "max_new_tokens", "log_completions", "log_weights"),
)


@dataclass
class BilevelOfflineRLConfig(OfflineRLSettings, TrainingArguments):
    r"""Configuration class for the [`BilevelOfflineRLTrainer`]: offline RL on trajectories of mixed quality, with
    learned weights.

    It holds what differs from or is added to [`~transformers.TrainingArguments`]. Equations are numbered as in
    `docs/equations.md`, which has them all. With ℓ_i the mean over a trajectory's action tokens of the Monte-Carlo loss

        (Q(s, a) − G)² + λ · (logsumexp Q(s, ·) − Q(s, a))                                                      (4)

    or of ILQL's (5), and with weights w̃ = softmax(w_φ(e_i)) over the optimizer batch (11), `method="boost"` repeats

        K_ψ steps on   min_ψ  Σ_i w̃_i ℓ_i(ψ)                                                                   (13)
        θ ← ψ, then
        K_θ steps on   min_θ  L_val(θ) + α · Σ_i w̃_i ℓ_i(θ)                                                    (14)
        K_φ steps on   min_φ  α · Σ_i w̃_i (ℓ_i(θ) − ℓ_i(ψ))                                                    (15)

    and the policy that is learned is π(a | s) ∝ exp(β · Q(s, a)) (9).

    Parameters:
        > Parameters that choose the method

        algorithm (`str`, *optional*, defaults to `"mc"`):
            Offline RL loss: `"mc"`, Monte-Carlo returns, equation (4), or `"ilql"`, implicit language Q-learning,
            equation (5).
        method (`str`, *optional*, defaults to `"boost"`):
            `"boost"`: the bilevel schedule of equations (13)–(15), which needs a validation dataset. `"validated"`: rows
            are scored before training by what a validation dataset teaches, drawn by weight and mixed with its rows,
            equations (18) and (19). `"vanilla"`: plain offline RL on the training dataset, no validation dataset.
        reweighting (`str`, *optional*, defaults to `"learned"`):
            `"learned"` weights, or `"uniform"`: the same training with equal weights (the control).
        weight_level (`str`, *optional*, defaults to `"trajectory"`):
            What has a weight of its own: a whole `"trajectory"` (the paper), or each assistant `"turn"` of it, equations (35)
            to (38), for dialogues in which good and bad turns stand side by side.
        auxiliary_policy (`str`, *optional*, defaults to `"heads"`):
            What the auxiliary policy ψ has of its own: value `"heads"` on a backbone shared with the primary policy θ
            (the paper), or a LoRA `"adapter"` as well, which takes a forward pass per policy in phase 4.

        > Parameters that control training

        learning_rate (`float`, *optional*, defaults to `1e-4`):
            Learning rate of the policies (heads and backbone).
        max_steps (`int`, *optional*, defaults to `-1`):
            Policy updates in all, those of equations (13) and (14); -1: as many as `num_train_epochs` gives. With
            `method="boost"` at least `auxiliary_steps` + `primary_steps`, of which a multiple ends with a whole outer
            iteration.
        logging_steps (`float`, *optional*, defaults to `10`):
            Log every this many policy updates.
        logging_nan_inf_filter (`bool`, *optional*, defaults to `False`):
            Leave losses that are not finite out of `loss` in the logs. They stop training in any case; looking for them
            waits for the device at every micro-batch.

        > Parameters that control the data

        max_length (`int`, *optional*, defaults to `1024`):
            Tokens per trajectory; whole turns are dropped from the end beyond it.
        discount (`float`, *optional*, defaults to `1.0`):
            γ in [0, 1], equation (1).
        discount_level (`str`, *optional*, defaults to `"turn"`):
            What γ is applied to once: a `"turn"`, or an action `"token"` (LMRL-Gym).

        > Parameters that control the value loss

        cql_weight (`float`, *optional*, defaults to `10.0`):
            λ in equations (4) and (5), the weight of the conservative term logsumexp Q(s, ·) − Q(s, a). It is what ties
            softmax(Q) to language: below 1 with `policy_prior="none"` a warning is given.
        expectile (`float`, *optional*, defaults to `0.7`):
            ILQL: τ in (0, 1) of the value loss, equation (6).
        target_update_rate (`float`, *optional*, defaults to `0.005`):
            ILQL: Polyak rate κ of the target Q heads per optimizer step, equation (7). `None` uses the Q heads themselves.
        half_squared_error (`bool`, *optional*, defaults to `False`):
            Put a factor ½ before the squared errors of equations (4) and (5), as LMRL-Gym does.
        loss_normalization (`str`, *optional*, defaults to `"trajectory_mean"`):
            ℓ_i, equation (8): mean over a trajectory's action tokens (`"trajectory_mean"`), its share of the batch's token
            mean (`"token_mean"`, as LMRL-Gym and trlX), or `"sum"`.
        normalize_returns (`bool`, *optional*, defaults to `True`):
            Scale (for Monte Carlo also shift) returns inside the loss by constants fitted on the training set and saved
            with the heads, equation (2). Logged Q, V and rewards are in the environment's units.
        return_shift (`float`, *optional*):
            Use this c in equation (2) instead of a fitted one, to compare runs on other rows (`algorithm="mc"` only).
        return_scale (`float`, *optional*):
            Use this z in equation (2) instead of a fitted one, to compare runs on other rows.

        > Parameters that control the value heads

        value_head_bias (`str`, *optional*):
            b in equation (3): one number (`"scalar"`) or one per vocabulary entry (`"token"`). By default as the LM's
            output head, which in most models has none and gives `"scalar"`.
        value_head_init (`str`, *optional*, defaults to `"lm_head"`):
            `"lm_head"`: W in equation (3) starts as the LM's centred output matrix, so that softmax(Q) starts as the LM's
            policy (as near as a linear head comes where logits are soft-capped). `"random"`: small random weights.
        value_head_rank (`int`, *optional*):
            Replace each |V| × d matrix W by a product of this rank.

        > Parameters that control the bilevel schedule

        auxiliary_steps (`int`, *optional*, defaults to `20`):
            K_ψ, updates of the auxiliary policy per outer iteration, equation (13).
        primary_steps (`int`, *optional*, defaults to `20`):
            K_θ, updates of the primary policy per outer iteration, equation (14).
        reweighting_steps (`int`, *optional*, defaults to `1`):
            K_φ, updates of the reweighting head per outer iteration, equation (15).
        penalty_alpha_init (`float`, *optional*, defaults to `1.0`):
            Penalty strength α of equations (14) and (15) at the start of training.
        penalty_alpha_final (`float`, *optional*):
            α at the end of its ramp, equation (16). Defaults to max(`penalty_alpha_init`, 1).
        penalty_alpha_ramp (`float`, *optional*, defaults to `0.5`):
            Share of training over which α moves linearly from its first to its last value, equation (16).
        reweighting_alpha (`float`, *optional*):
            A constant α for equation (15) alone. By default it has the scheduled α.
        per_device_validation_batch_size (`int`, *optional*):
            Validation trajectories in L_val of equation (14), per device and micro-batch. By default as many as training
            trajectories.

        > Parameters that control the reweighting head

        reweighting_learning_rate (`float`, *optional*):
            Learning rate of the reweighting head φ. Defaults to 0.1 × `learning_rate`.
        reweighting_head_depth (`int`, *optional*, defaults to `2`):
            Linear layers of w_φ in equation (11).
        reweighting_head_size (`int`, *optional*, defaults to `128`):
            Width of its hidden layers.
        standardize_embeddings (`bool`, *optional*, defaults to `True`):
            Standardise the embeddings e_i of equation (11) per dimension over the training set.

        > Parameters that control validated reweighting

        validation_share (`float`, *optional*, defaults to `0.2`):
            Share of every optimizer batch that is drawn from validation, in [0, 1).
        finish_share (`float`, *optional*, defaults to `0.0`):
            Finishing: this last share of the policy updates, in [0, 1), sees validation rows only. With `None`, `guard`
            chooses between 0 and 0.3 where rows are scored; it is 0 elsewhere.
        target_effective_fraction (`float`, *optional*, defaults to `0.4`):
            Effective sample size of the weights over the number of rows, in (0, 1], which sets k in equation (19); with
            `guard` one candidate among others.
        score_validation (`str`, *optional*, defaults to `"all"`):
            Validation rows that θ of equation (18) is fitted to: `"all"`, or the half with the highest returns
            (`"high_return"`); with `guard` one candidate among others.
        score_steps (`int`, *optional*):
            Updates of each fit of value heads for scoring and for the cross-validation of `guard`; they are no policy
            updates. θ, the heads that learn from validation, takes this number over 64, 16, 4 or 1: a search finds which, by
            fits of its own (the report's `primary_steps`). By default 400, or as many as keep all of it within about three
            times the cost of the training that follows, 16 at least.
        score_batch_size (`int`, *optional*, defaults to `64`):
            Trajectories per update of these fits.
        score_learning_rate (`float`, *optional*):
            First learning rate of these fits (Adam, falling to 0). By default 0.5 over the mean L1 norm of the hidden
            states, so that the first step moves a Q value by at most about 0.5.
        guard (`bool`, *optional*, defaults to `True`):
            Choose between several ways to weigh the rows, uniform weights among them, and to finish, by cross-validation on
            the validation dataset.
        guard_folds (`int`, *optional*, defaults to `5`):
            Folds of that cross-validation; fewer where a fold would have less than two rows.

        > Parameters that control the backbone

        train_backbone (`bool`, *optional*, defaults to `True`):
            Train the LM (or its adapter) with the heads. `False` freezes it: hidden states are then computed once and
            memory-mapped, and training runs at heads-only speed.
        states_dtype (`str`, *optional*, defaults to `"bfloat16"`):
            Frozen backbone: type of the stored hidden states, or `"float32"`.
        cache_dir (`str`, *optional*):
            Where embeddings and hidden states are cached. By default in `$BOOST_TRL_CACHE`, or else in the Hugging Face
            assets cache.
        model_init_kwargs (`dict[str, Any]`, *optional*):
            Keyword arguments of `from_pretrained` when the model is given by name; JSON on the command line.

        > Parameters that control the result

        average_last (`float`, *optional*, defaults to `0.25`):
            Average the trained parameters over this last share of the policy updates, equation (20); 0 turns it off.
        beta (`float`, *optional*, defaults to `1.0`):
            β of the extracted policy, equations (9) and (10); acts on the normalised Q.
        policy_prior (`str`, *optional*, defaults to `"none"`):
            Extracted policy: `"none"`, softmax(β Q), equation (9) (the paper), or `"lm"`, π_ref · exp(β (Q − V)), equation
            (10) (LMRL-Gym, ILQL).
        reference_model_name_or_path (`str`, *optional*):
            `policy_prior="lm"` with a fully trained backbone: the unmodified LM to use as π_ref.
        eval_games (`int`, *optional*, defaults to `64`):
            Games that `evaluate()` plays when the trainer has an environment.
        max_new_tokens (`int`, *optional*, defaults to `64`):
            Length limit of one action in those games.
        log_completions (`bool`, *optional*, defaults to `False`):
            Whether to send those games as a table to those of tensorboard, wandb, trackio and comet that `report_to` names.
        log_weights (`bool`, *optional*, defaults to `False`):
            Whether to send the rows of largest and smallest weight, with their first words, as a table and all weights as a
            picture to those trackers, at each evaluation and at the end.

        > Deprecated parameters

        validation_batch_size (`int`, *optional*):
            Use `per_device_validation_batch_size`: validation trajectories per optimizer step of equation (14) over all
            processes.
    """

    _VALID_DICT_FIELDS = TrainingArguments._VALID_DICT_FIELDS + ["model_init_kwargs"]

    logging_steps: float = field(default=10, metadata={"help": "Log every this many policy updates."})
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={
            "help": "Leave losses that are not finite out of `loss` in the logs. They stop training in any case; looking for "
            "them waits for the device at every micro-batch."
        },
    )

    def __post_init__(self):
        set_quiet_defaults(self)
        TrainingArguments.__post_init__(self)
        # The loader yields row numbers; there is no column to remove.
        self.remove_unused_columns = False
        OfflineRLSettings.__post_init__(self)
        if self.load_best_model_at_end:
            raise ValueError(
                "`load_best_model_at_end` would discard the average that is this trainer's result; keep checkpoints with "
                "`save_strategy` and choose among them, or set `average_last`"
            )
        if self.neftune_noise_alpha is not None:
            raise ValueError("`neftune_noise_alpha` is not supported: hidden states are read below the embedding hook")

    def to_dict(self) -> dict[str, Any]:
        """As [`~transformers.TrainingArguments.to_dict`], without tokens in nested settings either."""
        return without_tokens(super().to_dict())
