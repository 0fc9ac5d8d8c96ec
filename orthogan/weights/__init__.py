"""Constraints on weights. Each is one function call on any module.

Constrain one layer with ``spectral_norm(m)``, ``stable_rank_norm(m)``, ``rotation(m)`` or ``orthogonal(m)``, and the
layers of a network with ``apply(net, "rotation", "conv,!first")``. ``remove(net)`` removes the constraints.
"""

from orthogan.weights.advance import PowerIterationScheduler, advance
from orthogan.weights.constraint import Constraint, register
from orthogan.weights.network import CONSTRAINTS, ConstraintConfig, Upkeep, apply, hold_power_iteration, remove
from orthogan.weights.orthogonal import Orthogonal, orthogonal
from orthogan.weights.report import report
from orthogan.weights.rotation import Rotation, refine, relaxation, resample, rotation
from orthogan.weights.selection import Selected, select
from orthogan.weights.spectral import SpectralNorm, spectral_norm
from orthogan.weights.stable_rank import StableRankNorm, stable_rank_norm

__all__ = [
    "CONSTRAINTS",
    "Constraint",
    "ConstraintConfig",
    "Orthogonal",
    "PowerIterationScheduler",
    "Rotation",
    "Selected",
    "SpectralNorm",
    "StableRankNorm",
    "Upkeep",
    "advance",
    "apply",
    "hold_power_iteration",
    "orthogonal",
    "refine",
    "register",
    "relaxation",
    "remove",
    "report",
    "resample",
    "rotation",
    "select",
    "spectral_norm",
    "stable_rank_norm",
]
