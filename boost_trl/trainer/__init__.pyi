# What `__init__.py` loads on first use, for type checkers.

from boost_trl.trainer.bilevel_dpo_config import BilevelDPOConfig as BilevelDPOConfig
from boost_trl.trainer.bilevel_dpo_trainer import BilevelDPOTrainer as BilevelDPOTrainer
from boost_trl.trainer.bilevel_offline_rl_config import BilevelOfflineRLConfig as BilevelOfflineRLConfig
from boost_trl.trainer.bilevel_offline_rl_trainer import BilevelOfflineRLTrainer as BilevelOfflineRLTrainer
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig as BilevelSFTSelfRefineConfig
from boost_trl.trainer.bilevel_sft_self_refine_trainer import (
    BilevelSFTSelfRefineTrainer as BilevelSFTSelfRefineTrainer,
)
