# What `__init__.py` loads on first use, for type checkers.

from boost_trl.comparison.own_data.compare import compare as compare
from boost_trl.data.lmrl_gym import load_lmrl_gym as load_lmrl_gym
from boost_trl.data.splits import split_by_category as split_by_category
from boost_trl.data.trajectories import validate_trajectories as validate_trajectories
from boost_trl.environments.adapters.from_trl import from_trl_environment as from_trl_environment
from boost_trl.environments.adapters.gymnasium import from_gymnasium as from_gymnasium
from boost_trl.environments.adapters.openenv import from_openenv as from_openenv
from boost_trl.environments.adapters.trl_episode import grpo_rows as grpo_rows
from boost_trl.environments.adapters.trl_rollout import as_rollout_func as as_rollout_func
from boost_trl.environments.adapters.trl_rollout import env_reward as env_reward
from boost_trl.environments.adapters.trl_tools import ToolEnvironment as ToolEnvironment
from boost_trl.environments.adapters.trl_tools import as_environment_factory as as_environment_factory
from boost_trl.environments.base import Environment as Environment
from boost_trl.environments.base import Task as Task
from boost_trl.environments.base import make_env as make_env
from boost_trl.environments.policies import GenerationPolicy as GenerationPolicy
from boost_trl.environments.rollout import evaluate_policy as evaluate_policy
from boost_trl.environments.rollout import rollout as rollout
from boost_trl.environments.served_model import ServedModel as ServedModel
from boost_trl.environments.synthetic import generate_synthetic as generate_synthetic
from boost_trl.models.reweighting_head import ReweightingHead as ReweightingHead
from boost_trl.models.value_heads import ValueHeads as ValueHeads
from boost_trl.models.value_policy import ValuePolicy as ValuePolicy
from boost_trl.trainer.bilevel_dpo_config import BilevelDPOConfig as BilevelDPOConfig
from boost_trl.trainer.bilevel_dpo_trainer import BilevelDPOTrainer as BilevelDPOTrainer
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig as BilevelOfflineRLConfig
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer as BilevelOfflineRLTrainer
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig as BilevelSFTSelfRefineConfig
from boost_trl.trainer.bilevel_sft_self_refine_trainer import (
    BilevelSFTSelfRefineTrainer as BilevelSFTSelfRefineTrainer,
)
from boost_trl.version import __version__ as __version__
