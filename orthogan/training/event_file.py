"""TensorBoard curves and images, written immediately and without a thread, so that disk errors occur in place."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.summary.writer.record_writer import RecordWriter

from orthogan.io.write import disk_errors

PREFIX = "events.out.tfevents."


class EventFile:
    """One file of scalars and images in ``folder``; TensorBoard reads it after existing files.

    Every method raises ``CannotWrite``.

    Args:
        purge: earlier files count only below this step.
    """

    def __init__(self, folder: Path, *, purge: int) -> None:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stamps = [p.name.removeprefix(PREFIX)[:10] for p in folder.glob(f"{PREFIX}*")]
            # TensorBoard sorts by name, and the clock may have been set back
            stamp = max([int(time.time()), *(int(text) + 1 for text in stamps if text.isdecimal())])
            self.path = folder / f"{PREFIX}{stamp:010d}.{socket.gethostname()}.{os.getpid()}"
            self._stream = self.path.open("wb")
        self._records = RecordWriter(self._stream)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._add(Event(wall_time=time.time(), session_log=SessionLog(status=SessionLog.START), step=purge))
        self.flush()

    def scalar(self, name: str, value: float, step: int) -> None:
        """Write one point of the curve ``name``."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
        self._add(Event(wall_time=time.time(), step=step, summary=summary))

    def image(self, name: str, path: Path, step: int) -> None:
        """The picture of a PNG file, under ``name``. Raises ``CannotWrite`` also where it cannot be read."""
        with disk_errors(path):
            png = path.read_bytes()
        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of the IHDR chunk
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        summary = Summary(value=[Summary.Value(tag=name, image=picture)])
        self._add(Event(wall_time=time.time(), step=step, summary=summary))

    def flush(self) -> None:
        """Flush all points to the system."""
        with disk_errors(self.path):
            self._records.flush()

    def close(self) -> None:
        """Flush and close."""
        with disk_errors(self.path):
            self._stream.close()

    def _add(self, event: Event) -> None:
        with disk_errors(self.path):
            self._records.write(event.SerializeToString())
