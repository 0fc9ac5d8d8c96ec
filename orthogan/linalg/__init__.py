"""Pure functions on matrices: no modules, no state. Matrices may carry leading batch dimensions."""

from orthogan.linalg.power import normalize, power_iteration
from orthogan.linalg.stable_rank import stable_rank, stable_rank_scale

__all__ = ["normalize", "power_iteration", "stable_rank", "stable_rank_scale"]
