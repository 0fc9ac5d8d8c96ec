"""Moving averages of weights: with a half-life in images, or several that can be combined after training."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import nn

from orthogan.training.config import LONGEST, EmaConfig

Net = TypeVar("Net", bound=nn.Module)


class Ema(Generic[Net]):
    """An averaged copy of a net: parameters are averaged, buffers (batch statistics) are copied.

    The weight kept after a step of ``n`` images is ``0.5 ** (n / half_life)``, where the half-life is at most
    ``warmup`` times the images seen so far (Karras et al. 2020, training loop), so that the first average is
    not dominated by the initial weights.
    """

    def __init__(self, net: Net, config: EmaConfig) -> None:
        self.net = _frozen_copy(net)
        self.half_life = config.half_life
        self.warmup = config.warmup

    def decay(self, images_seen: int, images_step: int) -> float:
        """Return the decay of the average for a step of ``images_step`` images."""
        half_life = float(self.half_life)
        if self.warmup > 0:
            half_life = min(half_life, self.warmup * images_seen)
        return 0.5 ** (images_step / max(half_life, 1e-8))

    def update(self, net: nn.Module, images_seen: int, images_step: int) -> None:
        """Update with the weights of ``net`` after a step."""
        _take_in(self.net, net, self.decay(images_seen, images_step))


class PowerEma(Ema[Net]):
    """Averages with power-function profiles (Karras et al. 2024, arXiv 2312.02696, section 3.1).

    After ``t`` images the weights of image ``tau`` count in proportion to ``tau ** gamma``. The initial weights do not
    count. The length of such an average is the standard deviation of its profile as a share of ``t``. ``nets`` holds
    one average per length of ``config.lengths``; ``net`` is the first of them, which is shown and scored.
    """

    def __init__(self, net: Net, config: EmaConfig) -> None:
        self.nets: dict[float, Net] = {length: _frozen_copy(net) for length in config.lengths}
        self.length = config.lengths[0]
        self.net = self.nets[self.length]

    def decay(self, images_seen: int, images_step: int) -> float:
        """The share of ``net`` that survives a step of ``images_step`` images."""
        return power_decay(self.length, images_seen, images_step)

    def update(self, net: nn.Module, images_seen: int, images_step: int) -> None:
        """Update with the weights of ``net`` after a step."""
        for length, average in self.nets.items():
            _take_in(average, net, power_decay(length, images_seen, images_step))


def make_average(net: Net, config: EmaConfig) -> Ema[Net] | None:
    """The average that ``config`` asks for; None for none."""
    if config.kind == "power":
        return PowerEma(net, config)
    return Ema(net, config) if config.half_life else None


def power_decay(length: float, images_seen: int, images_step: int) -> float:
    """The share of a power-function average that survives a step, which ended after ``images_seen`` (equation 2).

    Example:
        >>> round(power_decay(0.1, 1000, 10), 4)
        0.9233
    """
    return (1.0 - images_step / images_seen) ** (exponent(length) + 1.0)


def exponent(length: float) -> float:
    """The ``gamma`` of the profile ``tau ** gamma`` whose standard deviation is ``length``, as a share of the training.

    ``length ** 2 = (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))``, solved for ``gamma`` (equation 3 and appendix
    C.1).

    Raises:
        ValueError: not between 0 and 0.28, where the profile would no longer rise.

    Example:
        >>> round(exponent(0.05), 2), round(exponent(0.10), 2)
        (16.97, 6.94)
    """
    if not 0.0 < length < LONGEST:
        raise ValueError(f"length {length:g}: must be greater than 0 and less than {LONGEST}")
    low, high = 0.0, 1.0 / length  # the deviation falls with gamma, and is less than 1 / gamma
    for _ in range(200):
        middle = (low + high) / 2
        if math.sqrt((middle + 1) / (middle + 3)) / (middle + 2) > length:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _frozen_copy(net: Net) -> Net:
    return copy.deepcopy(net).eval().requires_grad_(False)


@torch.no_grad()
def _take_in(average: nn.Module, net: nn.Module, kept: float) -> None:
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
        list(average.parameters()), list(net.parameters()), 1.0 - kept
    )
    for ours, theirs in zip(average.buffers(), net.buffers(), strict=True):
        ours.copy_(theirs)
