"""No decay."""

from __future__ import annotations

from typing import Any

from orthogan.training.schedules.schedule import SCHEDULES, ScheduleConfig


@SCHEDULES.register("constant")
class Constant(ScheduleConfig):
    """The learning rate stays the same after the warm-up."""

    @classmethod
    def read_old_keys(cls, tree: dict[str, Any]) -> dict[str, Any]:
        """Read configs of version 0.1, in which start and final of a constant schedule had no effect."""
        return {key: value for key, value in super().read_old_keys(tree).items() if key not in ("start", "final")}

    def decay(self, images: int, total: int) -> float:
        """Return 1."""
        return 1.0
