"""In what precision matrices are worked on."""

from __future__ import annotations

import torch
from torch import Tensor


def exact(tensor: Tensor) -> Tensor:
    """At least float32: singular vectors iterated in half precision never converge."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
