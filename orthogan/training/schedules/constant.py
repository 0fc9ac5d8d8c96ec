"""No decay."""

from __future__ import annotations

from orthogan.training.schedules.schedule import SCHEDULES, ScheduleConfig


@SCHEDULES.register("constant")
class Constant(ScheduleConfig):
    """The learning rate stays the same after the warm-up."""

    def decay(self, images: int, total: int) -> float:
        """Return 1."""
        return 1.0
