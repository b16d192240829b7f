"""The former place of [`boost_trl.trainer.sft.evaluation`]."""

import warnings

from boost_trl.trainer.sft.evaluation import row_losses


__all__ = ["row_losses"]

warnings.warn(
    "`boost_trl.trainer.sft_evaluation` is now `boost_trl.trainer.sft.evaluation`; the old name will be removed in the next "
    "version",
    FutureWarning,
    stacklevel=2,
)
