"""Old path of `arguments`."""

import warnings

from boost_trl.comparison.offline_rl.arguments import PAPER_METHODS, ComparisonArguments, parse_arguments
from boost_trl.comparison.offline_rl.worlds import TINY_MODEL_TRAINING


__all__ = ["PAPER_METHODS", "TINY_MODEL_TRAINING", "ComparisonArguments", "parse_arguments"]
warnings.warn(
    "`boost_trl.comparison.arguments` is now `boost_trl.comparison.offline_rl.arguments`", FutureWarning, stacklevel=2
)
