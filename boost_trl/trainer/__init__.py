"""The trainers and their configurations. They load on first use, so that `import boost_trl.trainer` alone does not import
torch."""

from boost_trl.lazy_names import load_on_use


_MODULE_OF = {
    "BilevelDPOConfig": "boost_trl.trainer.bilevel_dpo_config",
    "BilevelDPOTrainer": "boost_trl.trainer.bilevel_dpo_trainer",
    "BilevelOfflineRLConfig": "boost_trl.trainer.bilevel_offline_rl_config",
    "BilevelOfflineRLTrainer": "boost_trl.trainer.bilevel_offline_rl_trainer",
    "BilevelSFTSelfRefineConfig": "boost_trl.trainer.bilevel_sft_self_refine_config",
    "BilevelSFTSelfRefineTrainer": "boost_trl.trainer.bilevel_sft_self_refine_trainer",
}

__all__ = [*_MODULE_OF]


__getattr__ = load_on_use(__name__, _MODULE_OF)
