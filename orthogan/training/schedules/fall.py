"""A fall to the end of the run: linear, which is the SN-GAN recipe's (Chainer), or half a cosine (Loshchilov 2017)."""

from __future__ import annotations

import math

from pydantic import Field

from orthogan.config.base import Fraction
from orthogan.training.schedules.schedule import SCHEDULES, ScheduleConfig


@SCHEDULES.register("linear")
class Linear(ScheduleConfig):
    """The learning rate falls linearly from 1 at ``start`` to ``final`` at the end of the run."""

    kind: str = "linear"
    start: Fraction = Field(default=0.0, description="fraction of the run after which the decay begins [0-1]")
    final: Fraction = Field(default=0.0, description="final learning rate, as a fraction of lr [0-1]")

    def decay(self, images: int, total: int) -> float:
        """Return 1 until ``start``, then a value between 1 and ``final``."""
        begin = self.start * total
        if images <= begin or total <= begin:
            return 1.0
        return self.final + (1.0 - self.final) * self.left(min(1.0, (images - begin) / (total - begin)))

    def left(self, done: float) -> float:
        """Return what is left of the fall after the fraction ``done`` of it: from 1 to 0."""
        return 1.0 - done


@SCHEDULES.register("cosine")
class Cosine(Linear):
    """The learning rate falls along half a cosine from 1 at ``start`` to ``final`` at the end of the run."""

    kind: str = "cosine"

    def left(self, done: float) -> float:
        """Return what is left of the fall: (1 + cos(pi done)) / 2."""
        return 0.5 * (1.0 + math.cos(math.pi * done))
