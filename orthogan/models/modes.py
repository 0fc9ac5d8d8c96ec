"""Looking at a net without changing it: where it is; eval mode and no gradients, everything put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """Where the tensors of ``module`` are; the CPU if it has none."""
    return next((tensor.device for tensor in [*module.parameters(), *module.buffers()]), torch.device("cpu"))


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within the block every submodule is in eval mode (running statistics and power iterations stand still).

    The ``training`` flag of each submodule is restored at the end, whatever mixture it was.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training
