"""Learning-rate schedules: a factor that depends on the images seen, so it needs no state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from orthogan.training.config import ScheduleConfig

if TYPE_CHECKING:
    from orthogan.config.schema import Config


def factor(schedule: ScheduleConfig, images: int, total: int) -> float:
    """Return the factor on the learning rate after ``images`` of ``total`` images.

    Linear decay is the SN-GAN recipe's (Chainer): it falls from 1 at ``start`` to ``final`` at the end. Steps are
    the residual nets' (He et al. 2016): times ``factor`` from each milestone on. A warm-up multiplies any of them by
    a ramp from 0 at the first image to 1 at ``warmup``.
    """
    ramp = min(1.0, images / (schedule.warmup * total)) if schedule.warmup else 1.0
    return ramp * _decay(schedule, images, total)


def _decay(schedule: ScheduleConfig, images: int, total: int) -> float:
    if schedule.kind == "step":
        passed = sum(images >= round(share * total) for share in schedule.milestones)
        return schedule.factor**passed
    begin = schedule.start * total
    if schedule.kind == "constant" or images <= begin or total <= begin:
        return 1.0
    done = min(1.0, (images - begin) / (total - begin))
    left = 1.0 - done if schedule.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return schedule.final + (1.0 - schedule.final) * left


def keys_of_length(config: Config) -> list[str]:
    """The keys of ``config`` by which the length of the run changes its course from the beginning."""
    schedule = config.training.schedule
    found = ["training.schedule"] if schedule.kind != "constant" or schedule.warmup else []
    if config.loss.latent_penalty.kind != "none" and config.loss.latent_penalty.ramp:
        found.append("loss.latent_penalty.ramp")
    nets = ("generator", "discriminator") if config.task == "gan" else ("classifier",)
    for net in nets:
        penalties = getattr(config.model, net).penalties
        found += [f"model.{net}.penalties.{i}.schedule" for i, one in enumerate(penalties) if len(one.schedule) > 1]
    return found
