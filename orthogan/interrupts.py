"""Ctrl-C and SIGTERM at any moment of a command end it with one line and never with a traceback."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from orthogan.errors import EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_TERMINATED, Terminated

if TYPE_CHECKING:  # the fewer imports, the sooner the handlers are there
    from types import FrameType


class Interrupts:
    """A context in which Ctrl-C raises ``KeyboardInterrupt`` and SIGTERM ``Terminated``.

    Amid an import, which would catch or change an exception, they end the process at once. A signal that is ignored
    stays ignored.

    Args:
        at_once: end the process in any case.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.command = ""
        self.at_once = at_once
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def begin(self) -> None:
        """Set the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.getsignal(number)
            if before not in (signal.SIG_IGN, None):
                try:
                    signal.signal(number, self._caught)
                except ValueError:  # only the main thread may handle signals
                    return
                self._before[number] = before

    def outcome(self, error: KeyboardInterrupt) -> tuple[str, int]:
        """(line for the user, exit code)."""
        if not isinstance(error, Terminated):
            return "interrupted", EXIT_INTERRUPTED
        if self.command == "train":
            return "stopped by SIGTERM outside the training loop; the same command resumes", EXIT_STOPPED
        return "stopped by SIGTERM", EXIT_TERMINATED

    def _caught(self, number: int, frame: FrameType | None) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else Terminated()
        if not self.at_once and not _importing(frame):
            raise error
        line, code = self.outcome(error)
        os.write(2, f"orthogan: {line}\n".encode())
        os._exit(code)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
