"""Penalties on weights.

``NAME(weight, **options)`` returns a 0-d tensor to add to a loss. ``apply`` does this for a whole network.
"""

from orthogan.penalties.conv import conv_orthogonality
from orthogan.penalties.disentangled_norm import disentangled_norm, free_correlations
from orthogan.penalties.energy import hyperspherical_energy
from orthogan.penalties.information import code_losses, information_bound
from orthogan.penalties.kernel import double_soft_orthogonality, mutual_coherence, off_diagonal, soft_orthogonality
from orthogan.penalties.network import PENALTIES, Penalty, PenaltyConfig, apply, penalty
from orthogan.penalties.schedule import SRIP_EPOCHS, SRIP_SCHEDULE, SRIP_WEIGHT, Schedule
from orthogan.penalties.srip import srip
from orthogan.penalties.total_correlation import total_correlation

__all__ = [
    "PENALTIES",
    "SRIP_EPOCHS",
    "SRIP_SCHEDULE",
    "SRIP_WEIGHT",
    "Penalty",
    "PenaltyConfig",
    "Schedule",
    "apply",
    "code_losses",
    "conv_orthogonality",
    "disentangled_norm",
    "double_soft_orthogonality",
    "free_correlations",
    "hyperspherical_energy",
    "information_bound",
    "mutual_coherence",
    "off_diagonal",
    "penalty",
    "soft_orthogonality",
    "srip",
    "total_correlation",
]
