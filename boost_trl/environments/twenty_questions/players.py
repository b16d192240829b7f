"""Old path of [`~boost_trl.environments.twenty_questions.scripted_policies`] and of `offline_data`."""

import warnings

from boost_trl.environments.twenty_questions.offline_data import offline_trajectories as offline_dialogues
from boost_trl.environments.twenty_questions.scripted_policies import ScriptedPolicy


__all__ = ["ScriptedPolicy", "offline_dialogues"]
warnings.warn(
    "`boost_trl.environments.twenty_questions.players` is now `scripted_policies` (`ScriptedPolicy`) and `offline_data` "
    "(`offline_trajectories`)",
    FutureWarning,
    stacklevel=2,
)
