"""The batch at a position, for one process of several, on its device."""

from __future__ import annotations

import weakref
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from orthogan.data.order import epoch_permutation, permuted_index
from orthogan.data.source import ImageSource
from orthogan.data.streaming import Stream
from orthogan.errors import UserError
from orthogan.rng import derive

RESIDENT_LIMIT = 2 << 30  # "auto" puts a set in memory of at most so many bytes on the device


class Batches:
    """Shuffled batches of a source, each a pure function of (seed, position).

    A position is the number of images seen before, by all processes together. The global batch at it holds
    ``batch_size`` images of the endless shuffled stream (``orthogan.data.order``); process ``rank`` of ``world``
    gets the rows rank*b/w to (rank+1)*b/w, so the batch does not depend on how many processes share it.

    ``resident``: ``device`` keeps the whole set as uint8 on ``device`` and indexes it there; ``stream`` reads ahead
    with ``workers`` processes (0: in this one); ``auto`` is ``device`` for a set in memory of at most 2 GiB, and on
    a GPU at most a quarter of its free memory. All give the same batches.

    ``key``: of the batch size in the config, for messages. Raises UserError when ``world`` does not divide
    ``batch_size`` or the set is smaller than a batch.
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
            raise UserError(f"batch size {batch_size} cannot be shared evenly by {world} processes; use a multiple")
        if len(source) < batch_size:
            advice = f"; set {key} to at most {len(source)}, or give more images" if key else "; give more images"
            raise UserError(f"{source.name} has {len(source)} images, fewer than a batch of {batch_size}{advice}")
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
            # Holds the source and numbers, not self: a cycle would keep the workers of a forgotten object alive.
            indices = _Indices(self._seed, len(source), self._offset, self.share)
            self._stream = Stream(source, indices, step=batch_size, workers=workers, pin=pin)
            # Runs before multiprocessing's own exit handler, which would wait for workers that never see its signal.
            weakref.finalize(self, self._stream.close)

    def at(self, position: int) -> tuple[Tensor, Tensor]:
        """This process's part of the batch at ``position``.

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
        """The indices of this process's rows, cut on the device out of the order of their epochs."""
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


class _Indices:
    """The indices that one process reads at a position (a class, so that it can be sent to another process)."""

    def __init__(self, seed: int, n: int, offset: int, count: int) -> None:
        self.seed, self.n, self.offset, self.count = seed, n, offset, count

    def __call__(self, position: int) -> np.ndarray:
        return permuted_index(self.seed, self.n, position + self.offset, self.count)


def fits(source: ImageSource, device: torch.device) -> bool:
    """Whether ``resident="auto"`` keeps the set on the device."""
    if not source.in_memory or source.nbytes > RESIDENT_LIMIT:
        return False
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return 4 * source.nbytes <= free


def load_all(source: ImageSource, device: torch.device) -> tuple[Tensor, Tensor]:
    """The whole set on the device: images uint8 (N, c, h, w) and labels int64 (N,), read in pieces."""
    shape = (len(source), source.channels, source.resolution, source.resolution)
    images = torch.empty(shape, dtype=torch.uint8, device=device)
    labels = torch.empty(len(source), dtype=torch.int64, device=device)
    for start in range(0, len(source), 4096):
        indices = np.arange(start, min(start + 4096, len(source)))
        part, classes = source.read(indices)
        images[start : start + len(part)] = torch.from_numpy(np.ascontiguousarray(part)).to(device)
        labels[start : start + len(part)] = torch.from_numpy(classes).to(device)
    return images, labels
