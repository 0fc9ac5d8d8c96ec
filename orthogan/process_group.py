"""The processes of one command: how they meet, and what happens if one of them ends too early."""

from __future__ import annotations

import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.distributed_c10d import _get_default_group, _get_default_timeout

from orthogan.errors import Diverged, PeerFailed, Stopped, UserError

if TYPE_CHECKING:
    from accelerate.state import PartialState  # imported on first use

MEETING = timedelta(minutes=2)  # time for all processes to start
ANSWER = timedelta(seconds=20)  # time for a listening process to answer
NEWS = 3.0  # seconds in which an ending process can report why
FAREWELL = 60.0  # seconds in which the others can ask
KINDS = {"user": UserError, "diverged": Diverged, "interrupted": KeyboardInterrupt, "bug": PeerFailed}
_LOST = re.compile("gloo|nccl|connection|socket|peer", re.IGNORECASE)


@dataclass(frozen=True)
class _Group:
    """The processes that have met; ``host``: whether the store is lost with this process."""

    store: Store
    rank: int
    world: int
    host: bool

    def others(self) -> list[int]:
        return [rank for rank in range(self.world) if rank != self.rank]

    def has(self, what: str) -> bool:
        """Whether a process has noted ``what``. Raises ``RuntimeError`` if the store is lost."""
        return self.store.check([what])

    def wait(self, seconds: float, *names: str) -> None:
        """Wait until all ``names`` are noted, or until the timeout."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not all(self.has(name) for name in names):
            time.sleep(0.05)


_group: _Group | None = None


def several() -> bool:
    """Whether ``torchrun`` or ``accelerate launch`` has started several processes."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in names) and int(os.environ["WORLD_SIZE"]) > 1


def join(*, cpu: bool) -> PartialState:
    """Meet the other processes of ``torchrun`` or ``accelerate launch``, if there are any, for at most 2 minutes.

    Raises:
        UserError: naming the processes that did not start.
    """
    from accelerate.state import PartialState

    if bool(PartialState._shared_state) or dist.is_initialized() or not several():
        return PartialState(cpu=cpu)
    global _group
    rank, world, address = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), os.environ["MASTER_ADDR"]
    port, host = int(os.environ["MASTER_PORT"]), rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    end = time.monotonic() + MEETING.total_seconds()
    try:
        if not host:
            _reach(address, port, end)
        tcp = TCPStore(address, port, world, host, timeout=ANSWER, wait_for_workers=False, multi_tenant=True)
        tcp.set_timeout(MEETING)
        store = PrefixStore(f"orthogan/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", tcp)
        group = _Group(store, rank, world, host)
        store.set(f"here/{rank}", "")
        group.wait(end - time.monotonic(), *(f"here/{other}" for other in group.others()))
        missing = [other for other in group.others() if not group.has(f"here/{other}")]
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"process {rank} of {world} cannot connect to the first one at {address}:{port} ({reason}); start all of "
            "them again"
        ) from None
    if missing:
        raise UserError(
            f"process {_listed(missing)} of {world} did not start within {MEETING.total_seconds():.0f} seconds; "
            "start all of them again"
        )
    _group = group
    # the group waits for a process that is killed before it has joined as long as for one that does not start; later
    # the others may wait long, for example for scores that one of them computes
    state = PartialState(cpu=cpu, store=PrefixStore("group", store), rank=rank, world_size=world, timeout=MEETING)
    _set_timeout(_get_default_timeout(dist.get_backend()))
    return state


def _reach(address: str, port: int, end: float) -> None:
    """Wait until a process listens at this address. Raises ``OSError`` if none does by ``end``.

    ``TCPStore`` also waits, but for up to twice its timeout and a random pause, and Ctrl-C does not interrupt it.
    """
    while True:
        try:
            socket.create_connection((address, port), timeout=max(end - time.monotonic(), 0.1)).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)


def _set_timeout(timeout: timedelta) -> None:
    """Set how long an operation of the group may take."""
    group = _get_default_group()
    for backend in {group._get_backend(device) for device in group._device_types}:
        backend._set_default_timeout(timeout)


def first_process() -> bool:
    """Whether this is the main process; works before the processes have met."""
    return int(os.environ.get("RANK", "0")) == 0


@contextmanager
def fail_together(advice: str) -> Iterator[None]:
    """Context that all processes leave with the same exception: an error in one ends the others.

    Args:
        advice: what to do if a process ended without a message.
    """
    try:
        yield
    except Stopped:  # all processes have agreed on it
        raise
    except BaseException as error:
        if _group is None:
            raise
        try:
            verdict = _verdict(_group, error, advice)
        except RuntimeError:  # the store is lost, and with it the process that held it
            verdict = Stopped(f"process 0 of {_group.world} has ended without a message; {advice}")
        if verdict is error:
            raise
        raise verdict from None


def _verdict(group: _Group, error: BaseException, advice: str) -> BaseException:
    """Return the exception that ends all processes."""
    lost = isinstance(error, RuntimeError) and bool(isinstance(error, dist.DistError) or _LOST.search(str(error)))
    if lost:
        group.store.set(f"alive/{group.rank}", "")
        group.wait(NEWS, "failed")
        silent = [other for other in group.others() if not group.has(f"alive/{other}")]
        verdict: BaseException = error
        if group.has("failed"):
            rank, kind, text = json.loads(group.store.get("failed"))
            verdict = KINDS[kind](text if kind == "diverged" else f"process {rank} of {group.world}: {text}")
        elif silent:
            verdict = Stopped(f"process {_listed(silent)} of {group.world} has ended without a message; {advice}")
    else:
        kind = next((name for name, kind in KINDS.items() if isinstance(error, kind)), "bug")
        text = f"{type(error).__name__}: {error}" if kind == "bug" else str(error)
        group.store.compare_set("failed", "", json.dumps([group.rank, kind, text]))
        silent, verdict = [], error
    if dist.is_initialized():
        from accelerate.state import PartialState

        PartialState().destroy_process_group()  # processes that wait for this one learn that it is gone
    group.store.set(f"done/{group.rank}", "")
    if group.host:
        seconds = NEWS if isinstance(verdict, KeyboardInterrupt) else FAREWELL
        group.wait(seconds, *(f"done/{other}" for other in group.others() if other not in silent))
    return verdict


def _listed(ranks: list[int]) -> str:
    return ", ".join(map(str, ranks))
