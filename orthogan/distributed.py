"""Work of several processes: each computes a part, and all get the same numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Context in which this process works as if there were no others, and waits for none of them.

    It already has the data of all, or does what the others do not do.
    """
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def rank_and_world() -> tuple[int, int]:
    """Return the rank and the number of processes; (0, 1) outside a process group."""
    if _ALONE.get():
        return 0, 1
    joined = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if joined else (0, 1)


def hide_progress(progress: bool) -> bool:
    """``disable`` of a progress bar: only the first process shows it, if asked for."""
    return not progress or rank_and_world()[0] > 0


def share_of_rank(total: int) -> tuple[int, int]:
    """Return the contiguous range of ``total`` items for this process; joined parts are in order."""
    rank, world = rank_and_world()
    return rank * total // world, (rank + 1) * total // world


def gather(tensor: Tensor) -> list[Tensor]:
    """Gather tensors of the same shape from all processes, in the order of the processes, on their original device."""
    if rank_and_world()[1] == 1:
        return [tensor]
    mine = tensor.to(_exchange()).contiguous()
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(found, mine)
    return [part.to(tensor.device) for part in found]


def gather_rows(tensor: Tensor) -> Tensor:
    """Concatenate the rows of all processes, whose numbers may differ: (sum of n, d)."""
    counts = [int(n) for n in gather(torch.tensor([len(tensor)]))]
    if len(counts) == 1:
        return tensor
    padded = tensor.new_zeros(max(counts), *tensor.shape[1:])
    padded[: len(tensor)] = tensor
    return torch.cat([part[:n] for part, n in zip(gather(padded), counts, strict=True)])


def all_true(here: bool) -> bool:
    """Whether a condition holds on all processes, so that they all act or none does."""
    return all(bool(flag) for flag in gather(torch.tensor([int(here)])))


class _Sum(torch.autograd.Function):
    """Sum of all processes; ``torch.distributed.nn`` has the same, but is deprecated and warns in every training."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_of_all(gradients[0])


def sum_of_all(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes. Gradients of any order flow back to every process."""
    total: Tensor = _Sum.apply(tensor)  # pyright: ignore[reportAssignmentType]
    return total


def broadcast_json(value: Any) -> Any:
    """Return the ``value`` of the first process (JSON-serializable): machines may differ in the last digits."""
    rank, world = rank_and_world()
    if world == 1:
        return value
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
    length = int(gather(torch.tensor([len(text)]))[0])
    message = text if rank == 0 else torch.zeros(length, dtype=torch.uint8)
    return json.loads(bytes(gather(message)[0].tolist()))


def _exchange() -> torch.device:
    """Return the device that the backend of the process group needs."""
    nccl = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
