"""Maths of data selection: no trainer and no dataset. Names load on first use, most of them with torch."""

from importlib import import_module


_MODULE_OF = {
    "ImportanceRatios": "boost_trl.selection.importance",
    "PenaltySchedule": "boost_trl.selection.penalty_schedule",
    "Selector": "boost_trl.selection.selector",
    "TokenBaseline": "boost_trl.selection.token_baseline",
    "WeightConfidence": "boost_trl.selection.confidence",
    "importance_ratios": "boost_trl.selection.importance",
    "prefers_weights": "boost_trl.selection.guard",
    "response_weights": "boost_trl.selection.importance",
    "row_means": "boost_trl.selection.row_means",
    "weight_confidence": "boost_trl.selection.confidence",
    "weights_auc": "boost_trl.selection.auc",
}

__all__ = [*_MODULE_OF]


def __getattr__(name):
    if name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
