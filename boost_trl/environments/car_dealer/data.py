"""Old path of [`~boost_trl.environments.car_dealer.offline_data`]."""

import warnings

from .offline_data import offline_trajectories as offline_dialogues


__all__ = ["offline_dialogues"]
warnings.warn(
    "`boost_trl.environments.car_dealer.data.offline_dialogues` is now `offline_data.offline_trajectories`",
    FutureWarning,
    stacklevel=2,
)
