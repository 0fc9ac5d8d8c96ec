"""Learning-rate schedules, one file per shape: how the learning rates change over a run."""

from orthogan.training.schedules.schedule import SCHEDULE, SCHEDULES, ScheduleConfig, factor, keys_of_length, resolved

__all__ = ["SCHEDULE", "SCHEDULES", "ScheduleConfig", "factor", "keys_of_length", "resolved"]
