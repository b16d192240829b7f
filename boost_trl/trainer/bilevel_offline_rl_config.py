"""Configuration of [`BilevelOfflineRLTrainer`]."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from boost_trl.trainer.offline_rl_settings import OfflineRLSettings


# What a resumed run may change: where the model comes from and how it is used, but not what it is trained for. `average_last`
# has its own rule.
FREE_ON_RESUME = (
    *("model_init_kwargs", "cache_dir", "average_last", "beta", "policy_prior", "reference_model_name_or_path"),
    *("eval_games", "max_new_tokens"),
)


@dataclass
class BilevelOfflineRLConfig(OfflineRLSettings, TrainingArguments):
    """Configuration of [`BilevelOfflineRLTrainer`]: offline RL on trajectories of mixed quality, with learned weights.

    Only what differs from or adds to [`~transformers.TrainingArguments`] is listed; each field's help says what it does
    (`python -c "import boost_trl; help(boost_trl.BilevelOfflineRLConfig)"`, or `boost-trl offline-rl --help`).

    > Parameters that choose the method: `algorithm`, `method`, `reweighting`, `auxiliary_policy`
    > Parameters that control the data: `max_length`, `discount`, `discount_level`
    > Parameters that control the value loss: `cql_weight`, `expectile`, `target_update_rate`, `half_squared_error`,
      `loss_normalization`, `normalize_returns`, `return_shift`, `return_scale`
    > Parameters that control the value heads: `value_head_bias`, `value_head_init`, `value_head_rank`
    > Parameters that control the bilevel schedule: `auxiliary_steps`, `primary_steps`, `reweighting_steps`,
      `penalty_alpha_init`, `penalty_alpha_final`, `penalty_alpha_ramp`, `reweighting_alpha`,
      `per_device_validation_batch_size`
    > Parameters that control the reweighting head: `reweighting_learning_rate`, `reweighting_head_depth`,
      `reweighting_head_size`, `standardize_embeddings`
    > Parameters that control validated reweighting: `validation_share`, `target_effective_fraction`, `score_validation`,
      `score_steps`, `score_batch_size`, `score_learning_rate`, `guard`
    > Parameters that control the backbone: `train_backbone`, `states_dtype`, `cache_dir`, `model_init_kwargs`
    > Parameters that control the result: `average_last`, `beta`, `policy_prior`, `reference_model_name_or_path`,
      `eval_games`, `max_new_tokens`
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
