"""Analyses of learned weights: functions of weights, rows and embeddings ([B] §6, App. A–B, I), and a run's page of them.

Names load on first use.
"""

from boost_trl.lazy_names import load_on_use


_MODULE_OF = {
    "Correlation": "boost_trl.analysis.neighbour_distance",
    "correlation": "boost_trl.analysis.neighbour_distance",
    "distance_to_nearest": "boost_trl.analysis.neighbour_distance",
    "change_by_group": "boost_trl.analysis.weight_change",
    "relative_weight_change": "boost_trl.analysis.weight_change",
    "weight_shift": "boost_trl.analysis.two_runs",
    "pac_bayes_bound": "boost_trl.analysis.hitting_time_bound",
    "gaussian_kl": "boost_trl.analysis.hitting_time_bound",
    "estimate_task_shift": "boost_trl.analysis.hitting_time_bound",
    "play_again": "boost_trl.analysis.row_actions",
    "contradictions": "boost_trl.analysis.row_actions",
}

__all__ = [*_MODULE_OF]

__getattr__ = load_on_use(__name__, _MODULE_OF)


def __dir__():
    return sorted(__all__)
