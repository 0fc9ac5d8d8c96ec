"""Progress of long work: a bar on a terminal, and lines of text where the output goes to a file or a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
EVERY = 30.0  # seconds between two lines
TICKS: list[Callable[[], object]] = []  # called each time that a long job makes progress


def duration(seconds: float) -> str:
    """``seconds`` in words, as exact as an estimate is.

    Example:
        >>> duration(8.4), duration(95), duration(12_100), duration(200_000)
        ('8 s', '1 min 35 s', '3 h 22 min', '2 d 7 h')
    """
    whole = max(0, round(seconds))
    if whole >= 600:  # minutes are exact enough
        whole = round(whole / 60) * 60
    for large, small, names in ((86_400, 3600, "d h"), (3600, 60, "h min"), (60, 1, "min s")):
        if whole >= large:
            first, second = whole // large, whole % large // small
            one, two = names.split()
            return f"{first} {one} {second} {two}" if second else f"{first} {one}"
    return f"{whole} s"


def tick() -> None:
    """A long job has made progress."""
    for call in TICKS:
        call()


def is_terminal() -> bool:
    """Whether stderr, where bars are drawn, is a terminal."""
    return hasattr(sys.stderr, "isatty") and sys.stderr.isatty()


class Lines(Generic[T]):
    """The part of tqdm's interface that orthogan uses, which prints a line to stderr every ``EVERY`` seconds."""

    def __init__(self, items: Iterable[T] | None, *, desc: str, total: float | None, unit: str, initial: int) -> None:
        self.items, self.desc, self.unit, self.n = items, desc, unit.strip(), initial
        self.total = len(items) if total is None and hasattr(items, "__len__") else total  # pyright: ignore
        self._first = initial
        self._began = self._said = time.monotonic()

    def __iter__(self) -> Iterator[T]:
        for item in self.items or ():
            yield item
            self.update()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """``n`` more are done."""
        tick()
        self.n += n
        now = time.monotonic()
        if now - self._said < EVERY:
            return
        self._said = now
        line = f"{self.desc}: {self.n:,}"
        if self.total:
            left = (now - self._began) * (self.total - self.n) / max(1, self.n - self._first)
            line += f" of {self.total:,} {self.unit} ({self.n / self.total:.0%}), about {duration(left)} left"
        else:
            line += f" {self.unit}"
        print(line, file=sys.stderr, flush=True)

    def set_postfix_str(self, text: str) -> None:
        """A bar shows ``text`` at its end; a line does not."""

    def close(self) -> None:
        """Nothing is left to do."""


def progress_bar(
    items: Iterable[T] | None = None,
    desc: str = "",
    *,
    total: int | None = None,
    unit: str = "it",
    disable: bool = False,
    initial: int = 0,
    **options: Any,
) -> Any:
    """A tqdm bar on a terminal, else ``Lines``.

    Args:
        disable: True for neither.
        options: of the bar alone, see tqdm.
    """
    if disable or is_terminal():
        from tqdm import tqdm

        class Bar(tqdm):
            def update(self, n: float | None = 1) -> bool | None:
                tick()
                return super().update(n)

        if items is not None:
            total = len(items) if total is None and hasattr(items, "__len__") else total  # pyright: ignore
            items = _ticking(items)
        options = {"dynamic_ncols": True, **options}
        return Bar(items, desc, total=total, unit=unit, disable=disable, initial=initial, **options)
    return Lines(items, desc=desc, total=total, unit=unit, initial=initial)


def _ticking(items: Iterable[T]) -> Iterator[T]:
    for item in items:
        yield item
        tick()
