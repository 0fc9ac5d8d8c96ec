"""How the threads of a CPU wait for each other. This must be set before torch, and with it OpenMP, is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping

SPINS = "GOMP_SPINCOUNT"  # of libgomp, which the wheels of torch for Linux contain
SETTINGS = ("OMP_WAIT_POLICY", SPINS)  # what a user may have set
FEW = "3000"  # tens of microseconds: longer than the pause between two operations of a step


def short_spins(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables to add to ``environment`` so that a waiting thread soon gives its core to others.

    By default, a thread of libgomp that waits for another one occupies its core for several milliseconds. If that
    other thread needs the core, because a second process is busy, both lose. The settings of the user have priority.

    Example:
        >>> short_spins({})
        {'GOMP_SPINCOUNT': '3000'}
        >>> short_spins({"OMP_WAIT_POLICY": "active"})
        {}
    """
    return {} if any(name in environment for name in SETTINGS) else {SPINS: FEW}
