"""The factor on the learning rates: it depends on the images seen, so it needs no state.

Your own schedule, ``my_module:NAME``, is a function of the fraction of the run that is done; its further arguments are
keys of the section.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from orthogan.config.base import Fraction, OpenSection, Section, section_of_options
from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.named_code import describe
from orthogan.registry import Registry

if TYPE_CHECKING:
    from orthogan.config.schema import Config

Shape = Callable[..., float]  # (done, **options) -> factor, where done is the fraction of the run from 0 to 1


class ScheduleConfig(Section):
    """The config section ``training.schedule``; each kind is a subclass in ``SCHEDULES``."""

    kind: str = Field(default="constant", description="learning-rate schedule")
    warmup: Fraction = Field(
        default=0.0, description="fraction of the run over which the learning rate rises linearly from 0 [0-1]"
    )
    of_all_kinds: ClassVar = {"start": 0.0, "final": 0.0, "milestones": [], "factor": 0.1}

    def decay(self, images: int, total: int) -> float:
        """Return the factor on the learning rate after ``images`` of ``total`` images, without the warm-up."""
        raise NotImplementedError("use the class of a kind in SCHEDULES, such as SCHEDULES.get('constant')()")


def factor(schedule: ScheduleConfig, images: int, total: int) -> float:
    """Return the factor on the learning rate after ``images`` of ``total`` images.

    A warm-up multiplies any schedule by a ramp from 0 at the first image to 1 at ``warmup``.
    """
    ramp = min(1.0, images / (schedule.warmup * total)) if schedule.warmup else 1.0
    return ramp * schedule.decay(images, total)


def _adopt(found: Any) -> type[ScheduleConfig]:
    if inspect.isclass(found) and issubclass(found, ScheduleConfig):
        return found
    if not inspect.isfunction(found) or not inspect.signature(found).parameters:
        raise TypeError(
            f"{describe(found)}; name a function (done, **options) -> factor on the learning rate, where done is the "
            "fraction of the run from 0 to 1"
        )
    return _section(found)


@cache
def _section(shape: Shape) -> type[ScheduleConfig]:
    first, *others = inspect.signature(shape).parameters
    options = section_of_options(shape, ScheduleConfig, first)
    names = [name for name in others if name in options.model_fields]

    class Own(options):
        def decay(self, images: int, total: int) -> float:
            try:
                value = float(shape(images / total, **{name: getattr(self, name) for name in names}))
            except Exception as error:  # the user's own code
                raise UserError(
                    f"training.schedule.kind is {self.kind!r}: {type(error).__name__} at {images / total:.4g} of the "
                    f"run: {printable(str(error))}"
                ) from error
            if not 0.0 <= value < math.inf:
                raise UserError(
                    f"training.schedule.kind is {self.kind!r}: it returned {value:g} at {images / total:.4g} of the "
                    "run, but the factor on the learning rate must be a finite number of at least 0"
                )
            return value

    return Own


SCHEDULES: Registry[type[ScheduleConfig]] = Registry("schedule", "orthogan.training.schedules", adopt=_adopt)
SCHEDULE = OpenSection(SCHEDULES)


def resolved(schedule: ScheduleConfig) -> ScheduleConfig:
    """Return ``schedule`` in the class of its kind, which is imported where it is the user's own, and tried.

    Raises:
        UserError: it cannot be imported, has other keys, or returns what is no factor.
    """
    found = SCHEDULE.resolved(schedule)
    for images in range(3):
        found.decay(images, 2)
    return found


def keys_of_length(config: Config) -> list[str]:
    """The keys of ``config`` by which the length of the run changes its course from the beginning."""
    schedule = config.training.schedule
    found = ["training.schedule"] if schedule.kind != "constant" or schedule.warmup else []
    penalty, contrastive = config.loss.latent_penalty, config.loss.contrastive
    if penalty.kind != "none":
        found += ["loss.latent_penalty.start"] * (penalty.start > 0) + ["loss.latent_penalty.ramp"] * (penalty.ramp > 0)
    if contrastive.weight:
        found += ["loss.contrastive.start"] * (contrastive.start > 0)
        found += ["loss.contrastive.gap_until"] * (contrastive.gap > 0)
    nets = ("generator", "discriminator") if config.task == "gan" else ("classifier",)
    for net in nets:
        penalties = getattr(config.model, net).penalties
        found += [f"model.{net}.penalties.{i}.schedule" for i, one in enumerate(penalties) if len(one.schedule) > 1]
    return found
