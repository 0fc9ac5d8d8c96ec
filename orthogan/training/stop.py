"""Ctrl-C, SIGTERM and a closed terminal ask for a stop; the loop finishes its step, saves, and goes."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from accelerate import Accelerator


CHECK_EVERY = 10  # steps between agreements of several processes: each one waits for all


class StopSignal:
    """A context in which SIGINT, SIGTERM and SIGHUP set a flag; a second SIGINT interrupts at once, as usual.

    ``nohup`` ignores SIGHUP, and so does this.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may handle signals
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

    def agree(self, accelerator: Accelerator, step: int) -> bool:
        """Whether all processes stop now; they all have to call this at the same steps."""
        if accelerator.num_processes == 1:
            return self.name is not None
        if step % CHECK_EVERY:
            return False
        if self.name is not None:
            accelerator.set_trigger()
        return accelerator.check_trigger()
