"""What an experiment tracker is, and the registry of trackers; ``logging.trackers`` names them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from orthogan.errors import UserError
from orthogan.registry import Registry

Parameter = str | int | float | bool
STEP = "step"


class Tracker:
    """A place where the curves, scores and pictures of a run are shown. Subclass it; created without arguments.

    An error that a method raises ends the use of the tracker for the session, with a warning; training continues.

    Attributes:
        package: a package that it imports ("": none), installed with pip under the name ``install``.

    Example:
        >>> from orthogan.training import Tracker
        >>> class Printed(Tracker):
        ...     def log(self, values, step):
        ...         print(step, dict(values))
        ...
        >>> Printed().log({"loss/G": 0.5}, 20)
        20 {'loss/G': 0.5}
    """

    package: ClassVar[str] = ""
    install: ClassVar[str] = ""

    def start(self, run: Path, project: str, known: str | None) -> str:
        """Start a run called ``run.name``, or continue the one with the id ``known``; return its id."""
        return known or run.name

    def parameters(self, values: Mapping[str, Parameter]) -> None:
        """Show the config of a new run, as dotted keys."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Show one point of several curves. A score may arrive after the losses of later steps."""
        raise NotImplementedError

    def image(self, name: str, path: Path, step: int) -> None:
        """Show the picture of a PNG file."""

    def finish(self) -> None:
        """End the session."""

    def name_of(self, curve: str) -> str:
        """Return the name of a curve that the tracker accepts."""
        return curve


def _adopt(thing: Any) -> type[Tracker]:
    if not (inspect.isclass(thing) and issubclass(thing, Tracker)):
        raise TypeError("a tracker must be a subclass of orthogan.training.Tracker")
    return thing


TRACKERS: Registry[type[Tracker]] = Registry("tracker", "orthogan.training.trackers", adopt=_adopt)
TENSORBOARD = "tensorboard"


@TRACKERS.register(TENSORBOARD)
class TensorBoard(Tracker):
    """TensorBoard, as files in the run folder (``orthogan.training.event_file`` writes them)."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send nothing."""


class AccelerateTracker(Tracker):
    """A tracker of Accelerate.

    Attributes:
        kind: name of its class in ``accelerate.tracking``.
    """

    kind: ClassVar[str]
    tracker: Any

    def options(self, run: Path, known: str | None) -> dict[str, Any]:
        """Return the arguments of that class, for the run folder and the id of a run to continue; None is left out."""
        raise NotImplementedError

    def identity(self) -> object:
        """Return the id of the started run."""
        raise NotImplementedError

    def start(self, run: Path, project: str, known: str | None) -> str:
        """Start Accelerate's tracker."""
        from accelerate import tracking

        options = {key: value for key, value in self.options(run, known).items() if value is not None}
        self.tracker = getattr(tracking, self.kind)(project, **options)
        self.tracker.start()
        return str(self.identity())

    def parameters(self, values: Mapping[str, Parameter]) -> None:
        """Show the config."""
        self.tracker.store_init_configuration(dict(values))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Show one point of several curves."""
        self.tracker.log(dict(values), step=step)

    def finish(self) -> None:
        """End the session."""
        self.tracker.finish()


def picture(path: Path) -> Image.Image:
    """Return the picture of a file, in memory."""
    with Image.open(path) as image:
        return image.convert("RGB")


def check_trackers(names: Sequence[str]) -> None:
    """Raise ``UserError`` with the command to install it, if a tracker is not installed."""
    for name in names:
        tracker = TRACKERS.get(name, "logging.trackers")
        if tracker.package and find_spec(tracker.package) is None:
            raise UserError(
                f"logging.trackers: {name} is not installed; run: pip install {tracker.install}, or omit it"
            )
