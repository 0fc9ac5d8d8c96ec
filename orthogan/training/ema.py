"""The exponential moving average of a net's weights, with its half-life in images."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

from orthogan.training.config import EmaConfig

Net = TypeVar("Net", bound=nn.Module)


class Ema(Generic[Net]):
    """An averaged copy of a net: parameters are averaged, buffers (batch statistics) are copied.

    The weight kept after a step of ``n`` images is ``0.5 ** (n / half_life)``, where the half-life is at most
    ``warmup`` times the images seen so far (Karras et al. 2020, training loop), so that the first average is
    not dominated by the initial weights.
    """

    def __init__(self, net: Net, config: EmaConfig) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.half_life = config.half_life
        self.warmup = config.warmup

    def decay(self, images_seen: int, images_step: int) -> float:
        """The share of the average that survives a step of ``images_step`` images."""
        half_life = float(self.half_life)
        if self.warmup > 0:
            half_life = min(half_life, self.warmup * images_seen)
        return 0.5 ** (images_step / max(half_life, 1e-8))

    @torch.no_grad()
    def update(self, net: nn.Module, images_seen: int, images_step: int) -> None:
        """Take in the weights of ``net`` after a step."""
        weight = 1.0 - self.decay(images_seen, images_step)
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            list(self.net.parameters()), list(net.parameters()), weight
        )
        for ours, theirs in zip(self.net.buffers(), net.buffers(), strict=True):
            ours.copy_(theirs)
