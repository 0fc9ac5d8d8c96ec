"""Reading batches ahead in worker processes, from any position on."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from orthogan.data.source import BadFile, ImageSource
from orthogan.errors import UserError


class Chunk(NamedTuple):
    """What a worker sends back; ``failure`` is the text of a UserError, for which there are no images."""

    images: Tensor
    labels: Tensor
    bad: list[BadFile]
    failure: str | None


class _Reader(Dataset[Chunk]):
    """Reads the indices it is given, one batch a call."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __getitem__(self, indices: np.ndarray) -> Chunk:
        try:
            images, labels = self.source.read(indices)
        except UserError as error:
            return Chunk(torch.empty(0), torch.empty(0), [], str(error))
        return Chunk(torch.from_numpy(images), torch.from_numpy(labels), self.source.take_bad(), None)


class _Positions(Sampler[np.ndarray]):
    """The indices of the batches from position ``start`` on, without end."""

    def __init__(self, indices_at: Callable[[int], np.ndarray], step: int) -> None:
        self.indices_at, self.step, self.start = indices_at, step, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        position = self.start
        while True:
            yield self.indices_at(position)
            position += self.step


def _as_it_is(chunk: Any) -> Any:
    return chunk  # the default would turn its parts into lists


@contextmanager
def _signals_are_left_to_the_main_process() -> Iterator[None]:
    """Processes started inside never see Ctrl-C or SIGTERM, not even while they start.

    Both reach the whole process group, but the main process still needs batches to end its step. A blocked signal
    stays blocked in a child; here it is delivered afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows sends neither to a group
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stream:
    """Batches read ahead by ``workers`` processes.

    ``at(position)`` waits for the batch at a position; when it is not the one after the last, reading starts anew
    there. ``indices_at(position)`` gives the indices of a batch, ``step`` the distance of two positions [images].
    """

    def __init__(
        self, source: ImageSource, indices_at: Callable[[int], np.ndarray], *, step: int, workers: int, pin: bool
    ) -> None:
        self._source = source
        self._positions = _Positions(indices_at, step)
        self._loader: DataLoader[Any] | None = DataLoader(
            _Reader(source),
            sampler=self._positions,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            persistent_workers=True,
            prefetch_factor=2,
            pin_memory=pin,
        )
        self._iterator: Iterator[Chunk] | None = None
        self._next = -1

    def at(self, position: int) -> tuple[Tensor, Tensor]:
        """The batch at ``position``. Raises UserError when a worker met one, RuntimeError after ``close``."""
        if self._loader is None:
            raise RuntimeError("the stream was closed")
        if self._iterator is None or position != self._next:
            self._positions.start = position
            with _signals_are_left_to_the_main_process():
                self._iterator = iter(self._loader)
        chunk = Chunk(*next(self._iterator))
        self._next = position + self._positions.step
        self._source.report_bad([BadFile(*bad) for bad in chunk.bad])
        if chunk.failure is not None:
            raise UserError(chunk.failure)
        return chunk.images, chunk.labels

    def close(self) -> None:
        """Stop the workers; they would outlive a signal to end, which they never see."""
        self._iterator = None
        self._loader = None
