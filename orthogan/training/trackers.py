"""Experiment trackers beside TensorBoard: curves, pictures, config and scores of a run, through Accelerate's trackers.

``log.jsonl`` and ``metrics.jsonl`` stay the truth. ``trackers.json`` in the run folder holds the id of the run at each
tracker and the last step of each curve there, so that a resumed run continues it and repeats no step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from orthogan.config.files import flatten
from orthogan.errors import CannotWrite, UserError
from orthogan.io.read import describe_error, printable, read_json
from orthogan.io.write import write_text

STATE = "trackers.json"
TENSORBOARD = "tensorboard"  # writes its own files: see ``event_file.py``
STEP = "step"


@dataclass(frozen=True)
class Kind:
    """How a tracker is used.

    Args:
        package: imported by it, and installed with pip under the name ``install``.
        tracker: name of the class in ``accelerate.tracking``.
        options: further arguments of that class, from the run folder and the id of a run to continue (or None).
        identify: started tracker -> id of its run.
        image: logs a picture: tracker, name, path of the PNG, step.
        prepare: called once it has started: tracker, run folder, project.
        stepless: curves have their own axis of steps, so that a score may arrive late.
        clean: name of a curve -> name that the tracker accepts.
    """

    package: str
    install: str
    tracker: str
    options: Callable[[Path, str | None], dict[str, Any]]
    identify: Callable[[Any], str]
    image: Callable[[Any, str, Path, int], None]
    prepare: Callable[[Any, Path, str], None] = lambda tracker, run, project: None
    stepless: bool = False
    clean: Callable[[str], str] = str


def _picture(path: Path) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def _wandb_image(tracker: Any, name: str, path: Path, step: int) -> None:
    import wandb  # pyright: ignore[reportMissingImports]

    tracker.log({name: wandb.Image(str(path)), STEP: step})


def _trackio_image(tracker: Any, name: str, path: Path, step: int) -> None:
    import trackio  # pyright: ignore[reportMissingImports]

    tracker.log({name: trackio.Image(str(path))}, step=step)


def _mlflow_image(tracker: Any, name: str, path: Path, step: int) -> None:
    import mlflow  # pyright: ignore[reportMissingImports]

    mlflow.log_image(_picture(path), key=name, step=step)


def _wandb_axis(tracker: Any, run: Path, project: str) -> None:
    tracker.tracker.define_metric(STEP)
    tracker.tracker.define_metric("*", step_metric=STEP)


def _aim_names(tracker: Any, run: Path, project: str) -> None:
    tracker.tracker.name, tracker.tracker.experiment = run.name, project  # Accelerate's gives the project as name


KINDS: dict[str, Kind] = {
    "wandb": Kind(
        "wandb",
        "wandb",
        "WandBTracker",
        lambda run, known: {"name": run.name, "dir": str(run), "id": known, "resume": "allow"},
        lambda tracker: str(tracker.tracker.id),
        _wandb_image,
        prepare=_wandb_axis,
        stepless=True,
    ),
    "trackio": Kind(
        "trackio",
        "trackio",
        "TrackioTracker",
        lambda run, known: {"name": known or run.name, "resume": "allow" if known else "never"},
        lambda tracker: str(tracker.tracker.name),
        _trackio_image,
    ),
    "mlflow": Kind(
        "mlflow",
        "mlflow",
        "MLflowTracker",
        lambda run, known: {"run_name": run.name, "run_id": known},
        lambda tracker: str(tracker.tracker.info.run_id),
        _mlflow_image,
        clean=lambda name: re.sub(r"[^\w\-. :/]", "_", name),
    ),
    "aim": Kind(
        "aim",
        "aim",
        "AimTracker",
        lambda run, known: {"run_hash": known},
        lambda tracker: str(tracker.tracker.hash),
        lambda tracker, name, path, step: tracker.log_images({name: _picture(path)}, step=step),
        prepare=_aim_names,
    ),
    "comet": Kind(
        "comet_ml",
        "comet-ml",
        "CometMLTracker",
        lambda run, known: {"experiment_key": known, "mode": "get" if known else "create"},
        lambda tracker: str(tracker.tracker.get_key()),
        lambda tracker, name, path, step: tracker.tracker.log_image(str(path), name=name, step=step),
        prepare=lambda tracker, run, project: tracker.tracker.set_name(run.name),
    ),
}


def check_trackers(names: Sequence[str]) -> None:
    """Raise ``UserError`` with the command to install it, if a tracker is not installed."""
    for name in names:
        if name != TENSORBOARD and find_spec(KINDS[name].package) is None:
            raise UserError(
                f"logging.trackers: {name} is not installed; run: pip install {KINDS[name].install}, or omit it"
            )


class Trackers:
    """The trackers of the main process.

    Args:
        names: of ``KINDS``; "tensorboard" is skipped, because it writes its own files.
        run: the run folder; its name is that of the run at the tracker, in the project ``project``.
        config: shown as the parameters of the run, flattened to dotted keys.
        fresh: the run starts from nothing: at the trackers, too.
        warn: called with a line if a tracker fails; the run goes on without it.

    Raises:
        UserError: a tracker is not installed or cannot be started, for example without a login.
    """

    def __init__(
        self,
        names: Sequence[str],
        run: Path,
        *,
        project: str = "orthogan",
        config: Mapping[str, Any] | None = None,
        fresh: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._path, self._warn = run / STATE, warn
        self._open: dict[str, Any] = {}
        wanted = [name for name in dict.fromkeys(names) if name != TENSORBOARD]
        check_trackers(wanted)
        self._state: dict[str, Any] = {} if fresh else _stored(self._path)
        for name in wanted:
            kind, known = KINDS[name], self._state.get(name, {}).get("id")
            try:
                self._open[name] = _started(name, kind, project, run, known)
                identity = kind.identify(self._open[name])
                kind.prepare(self._open[name], run, project)
                if identity != known:
                    self._state[name] = {"id": identity, "last": {}}
                    self._open[name].store_init_configuration(parameters_of(config or {}))
            except Exception as error:  # of another program, or of the network
                self.close()
                raise UserError(
                    f"logging.trackers: {name} cannot be started: {describe_error(error)}; log in to it, use its "
                    "offline mode, or omit it"
                ) from error
        self._write()

    def __bool__(self) -> bool:
        return bool(self._open)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log points of curves. Those at or before the last step that a curve has at a tracker are skipped."""
        for name in list(self._open):
            kind, last = KINDS[name], self._state[name]["last"]
            new = {kind.clean(key): float(value) for key, value in values.items() if step > last.get(key, -1)}
            if new and self._tried(name, lambda tracker, kind=kind, new=new: _log(tracker, kind, new, step)):
                last.update(dict.fromkeys(values, step))
        self._write()

    def image(self, key: str, path: Path, step: int) -> None:
        """Log the picture of a PNG file, once per step."""
        for name in list(self._open):
            kind, last = KINDS[name], self._state[name]["last"]
            shown = kind.clean(key)
            if step > last.get(key, -1) and self._tried(
                name, lambda tracker, kind=kind, shown=shown: kind.image(tracker, shown, path, step)
            ):
                last[key] = step
        self._write()

    def close(self) -> None:
        """End the session at each tracker."""
        for name in list(self._open):
            self._tried(name, lambda tracker: tracker.finish())
            self._open.pop(name, None)

    def _tried(self, name: str, act: Callable[[Any], object]) -> bool:
        """Whether ``act`` succeeded; a tracker that fails is left alone for the rest of the session."""
        try:
            act(self._open[name])
        except Exception as error:  # of another program, or of the network
            del self._open[name]
            self._warn(f"{name} failed, so nothing more is sent to it in this session: {describe_error(error)}")
            return False
        return True

    def _write(self) -> None:
        if self._open:
            try:
                write_text(self._path, json.dumps(self._state, indent=1))
            except CannotWrite as error:
                self._warn(f"a resumed run may send some steps to its trackers twice: {error}")


def parameters_of(config: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """A nested config as dotted keys with plain values: {"training.steps": 400}; without null and empty mappings."""
    return {
        key: value if isinstance(value, (str, int, float, bool)) else str(value)
        for key, value in flatten(config).items()
        if value is not None and value != {}
    }


def _started(name: str, kind: Kind, project: str, run: Path, known: str | None) -> Any:
    from accelerate import tracking

    options = {key: value for key, value in kind.options(run, known).items() if value is not None}
    tracker = getattr(tracking, kind.tracker)(project, **options)
    tracker.start()
    return tracker


def _log(tracker: Any, kind: Kind, values: Mapping[str, float], step: int) -> None:
    if kind.stepless:
        tracker.log({**values, STEP: step})
    else:
        tracker.log(dict(values), step=step)


def _stored(path: Path) -> dict[str, Any]:
    """The state of an earlier session. Raises ``UserError`` naming a damaged file."""
    if not path.is_file():
        return {}
    found = read_json(path)
    try:
        return {str(name): {"id": str(one["id"]), "last": dict(one["last"])} for name, one in found.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{printable(path)}: is damaged; delete it to start new runs at the trackers") from None
