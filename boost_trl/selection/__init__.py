"""Maths of data selection: no trainer and no dataset. Names load on first use, most of them with torch."""

from boost_trl.lazy_names import load_on_use


_MODULE_OF = {
    "ImportanceRatios": "boost_trl.selection.importance",
    "PenaltySchedule": "boost_trl.selection.penalty_schedule",
    "ScoreAgreement": "boost_trl.selection.validated",
    "Selector": "boost_trl.selection.selector",
    "TokenBaseline": "boost_trl.selection.token_baseline",
    "WeightConfidence": "boost_trl.selection.confidence",
    "effective_sample_size": "boost_trl.selection.tempering",
    "importance_ratios": "boost_trl.selection.importance",
    "prefers_weights": "boost_trl.selection.guard",
    "response_weights": "boost_trl.selection.importance",
    "round_agreement": "boost_trl.selection.validated",
    "row_means": "boost_trl.selection.mean_losses",
    "score_agreement": "boost_trl.selection.validated",
    "temper": "boost_trl.selection.tempering",
    "validated_scores": "boost_trl.selection.validated",
    "weight_confidence": "boost_trl.selection.confidence",
    "weights_auc": "boost_trl.selection.auc",
}

__all__ = [*_MODULE_OF]


__getattr__ = load_on_use(__name__, _MODULE_OF)
