# What `__init__.py` loads on first use, for type checkers.

from boost_trl.analysis.hitting_time_bound import estimate_task_shift as estimate_task_shift
from boost_trl.analysis.hitting_time_bound import gaussian_kl as gaussian_kl
from boost_trl.analysis.hitting_time_bound import pac_bayes_bound as pac_bayes_bound
from boost_trl.analysis.neighbour_distance import Correlation as Correlation
from boost_trl.analysis.neighbour_distance import correlation as correlation
from boost_trl.analysis.neighbour_distance import distance_to_nearest as distance_to_nearest
from boost_trl.analysis.row_actions import contradictions as contradictions
from boost_trl.analysis.row_actions import play_again as play_again
from boost_trl.analysis.two_runs import weight_shift as weight_shift
from boost_trl.analysis.weight_change import change_by_group as change_by_group
from boost_trl.analysis.weight_change import relative_weight_change as relative_weight_change
