"""Old path of `comparison`."""

import warnings

from boost_trl.comparison.offline_rl.comparison import compare


__all__ = ["compare"]
warnings.warn(
    "`boost_trl.comparison.recipe` is now `boost_trl.comparison.offline_rl.comparison`", FutureWarning, stacklevel=2
)
