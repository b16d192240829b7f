"""Old path of `build`."""

import warnings

from boost_trl.comparison.offline_rl.build import build_experiment as build_setting


__all__ = ["build_setting"]
warnings.warn(
    "`boost_trl.comparison.offline_setting` is now `boost_trl.comparison.offline_rl.build`",
    FutureWarning,
    stacklevel=2,
)
