"""Maths of data selection: no trainer and no dataset."""

from boost_trl.selection.auc import weights_auc
from boost_trl.selection.guard import prefers_weights
from boost_trl.selection.importance import ImportanceRatios, importance_ratios, response_weights
from boost_trl.selection.penalty_schedule import PenaltySchedule
from boost_trl.selection.row_losses import row_means
from boost_trl.selection.selector import Selector
from boost_trl.selection.token_baseline import TokenBaseline


__all__ = [
    "ImportanceRatios",
    "PenaltySchedule",
    "Selector",
    "TokenBaseline",
    "importance_ratios",
    "prefers_weights",
    "response_weights",
    "row_means",
    "weights_auc",
]
