"""The former place and name of [`boost_trl.trainer.sft.evaluation.mean_nll_per_row`]."""

import warnings

from boost_trl.trainer.sft.evaluation import mean_nll_per_row as row_losses


__all__ = ["row_losses"]

warnings.warn(
    "`boost_trl.trainer.sft_evaluation.row_losses` is now `boost_trl.trainer.sft.evaluation.mean_nll_per_row`; the old name "
    "will be removed in the next version",
    FutureWarning,
    stacklevel=2,
)
