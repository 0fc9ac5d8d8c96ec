"""The trackers of a session of training: curves, pictures, config and scores of a run.

``log.jsonl`` and ``metrics.jsonl`` stay the truth. ``trackers.json`` in the run folder holds the id of the run at each
tracker and the last step of each curve there, so that a resumed run continues it and repeats no step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orthogan.config.files import flatten
from orthogan.errors import CannotWrite, UserError
from orthogan.io.read import describe_error, printable, read_json
from orthogan.io.write import write_text
from orthogan.training.trackers.tracker import TENSORBOARD, TRACKERS, Parameter, Tracker, check_trackers

STATE = "trackers.json"


class Trackers:
    """The trackers of the main process.

    Args:
        names: of ``TRACKERS``; "tensorboard" is skipped, because it writes its own files.
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
        self._open: dict[str, Tracker] = {}
        wanted = [name for name in dict.fromkeys(names) if name != TENSORBOARD]
        check_trackers(wanted)
        self._state: dict[str, Any] = {} if fresh else _stored(self._path)
        for name in wanted:
            known = self._state.get(name, {}).get("id")
            try:
                self._open[name] = TRACKERS.get(name)()
                identity = self._open[name].start(run, project, known)
                if identity != known:
                    self._state[name] = {"id": identity, "last": {}}
                    self._open[name].parameters(parameters_of(config or {}))
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
            tracker, last = self._open[name], self._state[name]["last"]
            new = {tracker.name_of(key): float(value) for key, value in values.items() if step > last.get(key, -1)}
            if new and self._tried(name, lambda tracker=tracker, new=new: tracker.log(new, step)):
                last.update(dict.fromkeys(values, step))
        self._write()

    def image(self, key: str, path: Path, step: int) -> None:
        """Log the picture of a PNG file, once per step."""
        for name in list(self._open):
            tracker, last = self._open[name], self._state[name]["last"]
            if step > last.get(key, -1) and self._tried(
                name, lambda tracker=tracker: tracker.image(tracker.name_of(key), path, step)
            ):
                last[key] = step
        self._write()

    def close(self) -> None:
        """End the session at each tracker."""
        for name in list(self._open):
            self._tried(name, self._open[name].finish)
            self._open.pop(name, None)

    def _tried(self, name: str, act: Callable[[], object]) -> bool:
        """Whether ``act`` succeeded; a tracker that fails is left alone for the rest of the session."""
        try:
            act()
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


def parameters_of(config: Mapping[str, Any]) -> dict[str, Parameter]:
    """A nested config as dotted keys with plain values: {"training.steps": 400}; without null and empty mappings."""
    return {
        key: value if isinstance(value, (str, int, float, bool)) else str(value)
        for key, value in flatten(config).items()
        if value is not None and value != {}
    }


def _stored(path: Path) -> dict[str, Any]:
    """The state of an earlier session. Raises ``UserError`` naming a damaged file."""
    if not path.is_file():
        return {}
    found = read_json(path)
    try:
        return {str(name): {"id": str(one["id"]), "last": dict(one["last"])} for name, one in found.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{printable(path)}: is damaged; delete it to start new runs at the trackers") from None
