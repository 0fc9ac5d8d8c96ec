"""Ctrl-C, SIGTERM and a closed terminal end a command with one line at any time, never with a traceback."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from orthogan.errors import EXIT_HUNG_UP, EXIT_INTERRUPTED, EXIT_STOPPED, Terminated

if TYPE_CHECKING:  # few imports, so that the handlers are installed early
    from types import FrameType


class Interrupts:
    """A context in which Ctrl-C raises ``KeyboardInterrupt``, and SIGTERM and SIGHUP ``Terminated``.

    During an import, which could catch or change the exception, they end the process immediately. Ignored signals stay
    ignored.

    Args:
        at_once: always end the process immediately.
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
        """Install the handlers."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            before = signal.getsignal(number)
            if before not in (signal.SIG_IGN, None):
                try:
                    signal.signal(number, self._caught)
                except ValueError:  # only the main thread may handle signals
                    return
                self._before[number] = before

    def outcome(self, error: KeyboardInterrupt) -> tuple[str, int]:
        """Return (message for the user, exit code)."""
        if not isinstance(error, Terminated):
            return "interrupted", EXIT_INTERRUPTED
        if self.command == "train":
            return f"stopped by {error.name} outside the training loop; the same command resumes", EXIT_STOPPED
        return f"stopped by {error.name}", error.exit_code

    def _caught(self, number: int, frame: FrameType | None) -> None:
        error = KeyboardInterrupt() if number == signal.SIGINT else Terminated()
        if number == signal.SIGHUP:
            error = Terminated("SIGHUP", EXIT_HUNG_UP)
        if not self.at_once and not _importing(frame):
            raise error
        line, code = self.outcome(error)
        with suppress(OSError):  # the terminal is closed
            os.write(2, f"orthogan: {line}\n".encode())
        os._exit(code)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
