"""Constraints on a weight, each in one line on any module: ``spectral_norm(m)``, ``stable_rank_norm(m)``."""

from orthogan.weights.network import advance, apply, frozen, remove
from orthogan.weights.report import LayerReport, report
from orthogan.weights.selection import Selected, select
from orthogan.weights.spectral import SpectralNorm, spectral_norm
from orthogan.weights.stable_rank import StableRankNorm, stable_rank_norm

__all__ = [
    "LayerReport",
    "Selected",
    "SpectralNorm",
    "StableRankNorm",
    "advance",
    "apply",
    "frozen",
    "remove",
    "report",
    "select",
    "spectral_norm",
    "stable_rank_norm",
]
