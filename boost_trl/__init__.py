"""boost_trl: TRL trainers that learn how much each training example should count.

Names load on first use, so that `import boost_trl` alone does not import torch.
"""

import logging

from boost_trl.lazy_names import load_on_use
from boost_trl.version import __version__


# peft imports bitsandbytes whether or not a model is quantised, and on some CPUs that says it lacks an optional kernel.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in str(record.msg))


_MODULE_OF = {
    "BilevelDPOConfig": "boost_trl.trainer.bilevel_dpo_config",
    "BilevelDPOTrainer": "boost_trl.trainer.bilevel_dpo_trainer",
    "BilevelOfflineRLConfig": "boost_trl.trainer.bilevel_offline_rl_config",
    "BilevelOfflineRLTrainer": "boost_trl.trainer.bilevel_offline_rl_trainer",
    "BilevelSFTSelfRefineConfig": "boost_trl.trainer.bilevel_sft_self_refine_config",
    "BilevelSFTSelfRefineTrainer": "boost_trl.trainer.bilevel_sft_self_refine_trainer",
    "Environment": "boost_trl.environments.base",
    "GenerationPolicy": "boost_trl.environments.policies",
    "ServedModel": "boost_trl.environments.served_model",
    "ReweightingHead": "boost_trl.models.reweighting_head",
    "Task": "boost_trl.environments.base",
    "ToolEnvironment": "boost_trl.environments.adapters.trl_tools",
    "ValueHeads": "boost_trl.models.value_heads",
    "ValuePolicy": "boost_trl.models.value_policy",
    "as_environment_factory": "boost_trl.environments.adapters.trl_tools",
    "as_rollout_func": "boost_trl.environments.adapters.trl_rollout",
    "compare": "boost_trl.comparison.own_data.compare",
    "env_reward": "boost_trl.environments.adapters.trl_rollout",
    "evaluate_policy": "boost_trl.environments.rollout",
    "from_gymnasium": "boost_trl.environments.adapters.gymnasium",
    "from_openenv": "boost_trl.environments.adapters.openenv",
    "from_trl_environment": "boost_trl.environments.adapters.from_trl",
    "generate_synthetic": "boost_trl.environments.synthetic",
    "grpo_rows": "boost_trl.environments.adapters.trl_episode",
    "load_lmrl_gym": "boost_trl.data.lmrl_gym",
    "make_env": "boost_trl.environments.base",
    "rollout": "boost_trl.environments.rollout",
    "split_by_category": "boost_trl.data.splits",
    "validate_trajectories": "boost_trl.data.trajectories",
}

__all__ = ["__version__", *_MODULE_OF]


__getattr__ = load_on_use(__name__, _MODULE_OF)


def __dir__():
    return sorted(__all__)
