"""The two trainers and their configurations. They load on first use, so that `import boost_trl.trainer` alone does not import
torch."""

from importlib import import_module


_MODULE_OF = {
    "BilevelOfflineRLConfig": "boost_trl.trainer.bilevel_offline_rl_config",
    "BilevelOfflineRLTrainer": "boost_trl.trainer.bilevel_offline_rl_trainer",
    "BilevelSFTSelfRefineConfig": "boost_trl.trainer.bilevel_sft_self_refine_config",
    "BilevelSFTSelfRefineTrainer": "boost_trl.trainer.bilevel_sft_self_refine_trainer",
}

__all__ = [*_MODULE_OF]


def __getattr__(name):
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'boost_trl.trainer' has no attribute {name!r}")
