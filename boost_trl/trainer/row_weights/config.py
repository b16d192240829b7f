"""Configuration of a trainer that weighs rows, whichever it is."""

from boost_trl.trainer.bilevel_dpo_config import BilevelDPOConfig
from boost_trl.trainer.bilevel_sft_self_refine_config import BilevelSFTSelfRefineConfig


RowWeightsConfig = BilevelSFTSelfRefineConfig | BilevelDPOConfig
