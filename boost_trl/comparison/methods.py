"""Old path of `methods`."""

import warnings

from boost_trl.comparison.offline_rl.methods import METHODS
from boost_trl.comparison.offline_rl.methods import OfflineRLMethod as Method


__all__ = ["METHODS", "Method"]
warnings.warn(
    "`boost_trl.comparison.methods` is now `boost_trl.comparison.offline_rl.methods`", FutureWarning, stacklevel=2
)
