"""Steps down at milestones, the schedule of residual nets (He et al. 2016)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orthogan.config.base import Fraction, Share
from orthogan.training.schedules.schedule import SCHEDULES, ScheduleConfig


@SCHEDULES.register("step")
class Step(ScheduleConfig):
    """The learning rate is multiplied by ``factor`` at each milestone."""

    kind: str = "step"
    milestones: Annotated[list[Fraction], Field(min_length=1, max_length=1000)] = Field(
        description="fractions of the run at which the learning rate drops, such as [0.4, 0.67]"
    )
    factor: Share = Field(default=0.1, description="factor on the learning rate at each milestone")

    def decay(self, images: int, total: int) -> float:
        """Return ``factor`` to the power of the number of milestones that are passed."""
        return self.factor ** sum(images >= round(share * total) for share in self.milestones)
