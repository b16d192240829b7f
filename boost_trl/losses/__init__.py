"""Equations (1) to (17) of `docs/equations.md`: offline-RL losses on action tokens and trajectory weights. Pure torch,
no trainer, no files.
"""

from .ilql import expectile_loss, ilql_loss
from .mc import mc_loss
from .q_statistics import q_statistics, q_values_of
from .returns import returns_to_go
from .weights import effective_sample_size, trajectory_weights, turn_weights, weight_entropy


__all__ = [
    "effective_sample_size",
    "expectile_loss",
    "ilql_loss",
    "mc_loss",
    "q_statistics",
    "q_values_of",
    "returns_to_go",
    "trajectory_weights",
    "turn_weights",
    "weight_entropy",
]
