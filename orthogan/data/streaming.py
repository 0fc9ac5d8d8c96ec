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

BY_PIPE = 1 << 19  # a batch of at most so many bytes is sent as such: a segment of shared memory takes 3 times as long


class Chunk(NamedTuple):
    """What a worker sends back; ``failure`` is the text of a UserError, for which there are no images.

    ``images``: (n, c, h, w), or (n, h, w, c) where ``last``; large ones are a tensor in shared memory.
    """

    images: Tensor | np.ndarray
    last: bool
    labels: np.ndarray
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
            return Chunk(np.empty(0), False, np.empty(0), [], str(error))
        # Only what is contiguous travels without being put in order first, pixel by pixel.
        last = not images.flags.c_contiguous and images.transpose(0, 2, 3, 1).flags.c_contiguous
        packed = np.ascontiguousarray(images.transpose(0, 2, 3, 1) if last else images)
        sent = packed if packed.nbytes <= BY_PIPE else torch.from_numpy(packed)
        return Chunk(sent, last, np.ascontiguousarray(labels), self.source.take_bad(), None)


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
            pin_memory=pin,  # of what is in shared memory, by a thread
        )
        self._pin = pin
        self._iterator: Iterator[Chunk] | None = None
        self._next = -1

    def at(self, position: int) -> tuple[Tensor, Tensor]:
        """The batch at ``position``, page-locked where ``pin`` was asked for.

        Raises UserError when a worker met one, RuntimeError after ``close``.
        """
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
        images = chunk.images if isinstance(chunk.images, Tensor) else torch.from_numpy(chunk.images)
        labels = torch.from_numpy(chunk.labels)
        if self._pin:  # what is pinned already stays as it is
            images, labels = images.pin_memory(), labels.pin_memory()
        return images.permute(0, 3, 1, 2) if chunk.last else images, labels

    def close(self) -> None:
        """Stop the workers; they would outlive a signal to end, which they never see."""
        self._iterator = None
        self._loader = None
