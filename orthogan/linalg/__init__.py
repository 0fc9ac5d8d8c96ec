"""Stateless functions on matrices. Matrices may have leading batch dimensions.

Half-precision input is converted to float32, and the result is float32, also inside autocast. Complex input raises a
ValueError. Entries may range from 1e-30 to 1e30, in float32 too: a result or gradient is wrong only if float32 cannot
represent it.
"""

from orthogan.linalg.energy import hyperspherical_energy
from orthogan.linalg.gram import (
    coherence,
    correlations,
    gram_residual,
    mean_coherence,
    norm_deviation,
    orthogonality_error,
    welch_bound,
)
from orthogan.linalg.learning_rate import optimal_learning_rate
from orthogan.linalg.polar import nearest_orthogonal, polar_factor
from orthogan.linalg.power import block_power_iteration, normalize, power_iteration
from orthogan.linalg.roots import inverse_sqrt, matrix_sqrt
from orthogan.linalg.stable_rank import stable_rank, stable_rank_projection, stable_rank_scale

__all__ = [
    "block_power_iteration",
    "coherence",
    "correlations",
    "gram_residual",
    "hyperspherical_energy",
    "inverse_sqrt",
    "matrix_sqrt",
    "mean_coherence",
    "nearest_orthogonal",
    "norm_deviation",
    "normalize",
    "optimal_learning_rate",
    "orthogonality_error",
    "polar_factor",
    "power_iteration",
    "stable_rank",
    "stable_rank_projection",
    "stable_rank_scale",
    "welch_bound",
]
