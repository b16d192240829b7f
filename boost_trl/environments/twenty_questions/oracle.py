"""Old path of [`~boost_trl.environments.twenty_questions.chat_simulator`]."""

import warnings

from boost_trl.environments.twenty_questions.chat_simulator import ChatAnswerer as ChatOracle


__all__ = ["ChatOracle"]
warnings.warn(
    "`boost_trl.environments.twenty_questions.oracle.ChatOracle` is now `chat_simulator.ChatAnswerer`",
    FutureWarning,
    stacklevel=2,
)
