# What `__init__.py` loads on first use, for type checkers.

from boost_trl.selection.auc import weights_auc as weights_auc
from boost_trl.selection.confidence import WeightConfidence as WeightConfidence
from boost_trl.selection.confidence import weight_confidence as weight_confidence
from boost_trl.selection.guard import prefers_weights as prefers_weights
from boost_trl.selection.importance import ImportanceRatios as ImportanceRatios
from boost_trl.selection.importance import importance_ratios as importance_ratios
from boost_trl.selection.importance import response_weights as response_weights
from boost_trl.selection.mean_losses import row_means as row_means
from boost_trl.selection.penalty_schedule import PenaltySchedule as PenaltySchedule
from boost_trl.selection.selector import Selector as Selector
from boost_trl.selection.tempering import effective_sample_size as effective_sample_size
from boost_trl.selection.tempering import temper as temper
from boost_trl.selection.token_baseline import TokenBaseline as TokenBaseline
from boost_trl.selection.validated import ScoreAgreement as ScoreAgreement
from boost_trl.selection.validated import round_agreement as round_agreement
from boost_trl.selection.validated import score_agreement as score_agreement
from boost_trl.selection.validated import validated_scores as validated_scores
