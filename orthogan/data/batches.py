"""Batches of images by position, for one of several processes: kept on its device, or read ahead by workers."""

from __future__ import annotations

import signal
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from orthogan.data.order import epoch_permutation, permuted_index
from orthogan.data.source import BadFile, ImageSource
from orthogan.errors import UserError
from orthogan.io.threads import cores
from orthogan.rng import derive
from orthogan.size import sides
from orthogan.words import counted

RESIDENT_LIMIT = 2 << 30  # "auto" keeps a set in memory of at most this many bytes on the device
# a batch of at most this many bytes is sent directly: a segment of shared memory takes 3 times as long
BY_PIPE = 1 << 19


class Batches:
    """Shuffled batches of a source, each a pure function of (seed, position).

    A position is the number of images that all processes have seen before. The global batch at a position holds
    ``batch_size`` images of the endless shuffled stream (``orthogan.data.order``); process ``rank`` of ``world`` gets
    the rows rank*b/w to (rank+1)*b/w, so the batch does not depend on the number of processes.

    Args:
        batch_size: images per batch, summed over all processes.
        seed: random seed of the order.
        rank, world: number of this process, and of all processes.
        device: device of the batches.
        resident: "device" keeps the whole set as uint8 on ``device`` and indexes it there; "stream" reads ahead with
            ``workers``; "auto" is "device" for a set in memory of at most 2 GiB, and on a GPU at most a quarter of its
            free memory. All give the same batches.
        workers: reader processes of "stream", at most one per CPU that this process may use; 0 reads in this one.
        key: config key of the batch size, for messages.

    Raises:
        UserError: ``world`` does not divide ``batch_size``, or the set is smaller than a batch.

    Example:
        >>> import numpy as np
        >>> from orthogan.data import ArraySource, Batches
        >>> source = ArraySource("mine", np.zeros((10, 3, 8, 8), np.uint8))
        >>> with Batches(source, batch_size=4, seed=0) as batches:
        ...     images, labels = batches.at(8)  # the images after the first 8
        ...
        >>> images.shape
        torch.Size([4, 3, 8, 8])
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        resident: Literal["auto", "device", "stream"] = "auto",
        workers: int = 2,
        key: str = "",
    ) -> None:
        if batch_size < 1 or batch_size % world:
            raise UserError(
                f"batch size {batch_size} cannot be divided evenly among {world} processes; use a multiple of {world}"
            )
        if len(source) < batch_size:
            advice = f"; set {key} to at most {len(source)}, or use more images" if key else "; use more images"
            raise UserError(
                f"{source.name} has {counted(len(source), 'image')}, fewer than a batch of {batch_size}{advice}"
            )
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        if resident not in ("auto", "device", "stream"):
            raise UserError(f"data.resident: must be auto, device or stream, not {resident!r}")
        self.source, self.batch_size, self.device = source, batch_size, torch.device(device)
        self.share = batch_size // world
        self._offset = rank * self.share
        self._seed = derive(seed, "data order")
        self._stream: Stream | None = None
        self._images: Tensor | None = None
        self._labels: Tensor | None = None
        self._orders: dict[int, Tensor] = {}
        self.resident = resident == "device" or (resident == "auto" and fits(source, self.device))
        if self.resident:
            self._images, self._labels = load_all(source, self.device)
        elif workers > 0:
            pin = self.device.type == "cuda"
            # It holds the source and numbers, not self: a reference cycle would keep the workers of a dropped object
            # alive.
            indices = partial(_indices, self._seed, len(source), self._offset, self.share)
            self._stream = Stream(source, indices, step=batch_size, workers=min(workers, cores()), pin=pin)
            # Runs before multiprocessing's own exit handler, which would wait for workers that never see its signal.
            weakref.finalize(self, self._stream.close)

    def at(self, position: int) -> tuple[Tensor, Tensor]:
        """Return this process's part of the batch at ``position``.

        Images uint8 (batch_size/world, c, h, w) and labels int64 (batch_size/world,), on the device.
        """
        if position < 0:
            raise ValueError(f"position {position} is negative")
        if self._images is not None and self._labels is not None:
            index = self._device_index(position + self._offset)
            return self._images.index_select(0, index), self._labels.index_select(0, index)
        if self._stream is not None:
            images, labels = self._stream.at(position)
        else:
            indices = permuted_index(self._seed, len(self.source), position + self._offset, self.share)
            images, labels = map(torch.from_numpy, self.source.read(indices))
        return images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)

    def _device_index(self, start: int) -> Tensor:
        """The indices of this process's rows, sliced on the device from the order of their epochs."""
        parts: list[Tensor] = []
        left = self.share
        while left > 0:
            epoch, place = divmod(start, len(self.source))
            if epoch not in self._orders:
                self._orders = {e: order for e, order in self._orders.items() if e == epoch - 1}
                order = epoch_permutation(self._seed, len(self.source), epoch)
                self._orders[epoch] = torch.from_numpy(order.copy()).to(self.device)
            part = self._orders[epoch][place : place + left]
            parts.append(part)
            start, left = start + len(part), left - len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def close(self) -> None:
        """Stop the worker processes, if any; the batches of a stream can no longer be read."""
        if self._stream is not None:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _indices(seed: int, n: int, offset: int, count: int, position: int) -> np.ndarray:
    """Return the indices that one process reads at a position."""
    return permuted_index(seed, n, position + offset, count)


def fits(source: ImageSource, device: torch.device) -> bool:
    """Whether ``resident="auto"`` keeps the set on the device."""
    if not source.in_memory or source.nbytes > RESIDENT_LIMIT:
        return False
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return 4 * source.nbytes <= free


def load_all(source: ImageSource, device: torch.device) -> tuple[Tensor, Tensor]:
    """Load the whole set onto the device in pieces: images uint8 (N, c, h, w) and labels int64 (N,)."""
    shape = (len(source), source.channels, *sides(source.resolution))
    images = torch.empty(shape, dtype=torch.uint8, device=device)
    labels = torch.empty(len(source), dtype=torch.int64, device=device)
    for start in range(0, len(source), 4096):
        indices = np.arange(start, min(start + 4096, len(source)))
        part, classes = source.read(indices)
        images[start : start + len(part)] = torch.from_numpy(np.ascontiguousarray(part)).to(device)
        labels[start : start + len(part)] = torch.from_numpy(classes).to(device)
    return images, labels


class Chunk(NamedTuple):
    """Answer of a worker; ``failure`` is the text of a UserError, in which case there are no images.

    ``images``: (n, c, h, w), or (n, h, w, c) where ``last``; large ones are a tensor in shared memory.
    """

    images: Tensor | np.ndarray
    last: bool
    labels: np.ndarray
    bad: list[BadFile]
    failure: str | None


class _Reader(Dataset[Chunk]):
    """Reads the given indices, one batch per call."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __getitem__(self, indices: np.ndarray) -> Chunk:
        try:
            images, labels = self.source.read(indices)
        except UserError as error:
            return Chunk(np.empty(0), False, np.empty(0), [], str(error))
        # Only contiguous arrays are sent without being copied pixel by pixel first.
        last = not images.flags.c_contiguous and images.transpose(0, 2, 3, 1).flags.c_contiguous
        packed = np.ascontiguousarray(images.transpose(0, 2, 3, 1) if last else images)
        sent = packed if packed.nbytes <= BY_PIPE else torch.from_numpy(packed)
        return Chunk(sent, last, np.ascontiguousarray(labels), self.source.take_bad(), None)


class _Positions(Sampler[np.ndarray]):
    """The indices of the batches from position ``start`` on, endlessly."""

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
    """Processes started inside never receive Ctrl-C, SIGTERM or SIGHUP, not even while they start.

    They reach the whole process group, but the main process still needs batches to end its step. A blocked signal
    stays blocked in a child; here it is delivered afterward.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows sends neither to a group
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Stream:
    """Batches read ahead by ``workers`` processes.

    ``at(position)`` waits for the batch at a position; if it does not follow the last one, reading restarts there.
    ``indices_at(position)`` returns the indices of a batch; ``step`` is the distance between two positions [images].
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
            pin_memory=pin,  # by a thread, of what is in shared memory
        )
        self._pin = pin
        self._iterator: Iterator[Chunk] | None = None
        self._next = -1

    def at(self, position: int) -> tuple[Tensor, Tensor]:
        """Return the batch at ``position``, in page-locked memory if ``pin`` is set.

        Raises UserError if a worker raised one, RuntimeError after ``close``.
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
        if self._pin:  # already pinned tensors stay as they are
            images, labels = images.pin_memory(), labels.pin_memory()
        return images.permute(0, 3, 1, 2) if chunk.last else images, labels

    def close(self) -> None:
        """Stop the workers; they do not receive signals, so they would not end by themselves."""
        self._iterator = None
        self._loader = None
