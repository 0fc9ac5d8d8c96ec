"""Commands in forked processes: they start in no time, because everything is imported already."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.state import AcceleratorState

import orthogan.training
from orthogan.cli.main import main as cli
from tests.training.runs import TINY


@dataclass
class Started:
    """A command at work."""

    pid: int
    output: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def end(self, seconds: float = 120.0) -> tuple[int, str]:
        """(exit code, or -signal; everything that it printed). Fails where it does not end in time."""
        deadline = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status), self.output.read_text(errors="replace")
            if time.monotonic() > deadline:
                self.kill()
                os.waitpid(self.pid, 0)
                raise AssertionError(f"did not end in {seconds} s: {self.output.read_text(errors='replace')}")
            time.sleep(0.01)


def tiny_arguments(folder: Path, *overrides: str) -> list[str]:
    """The command line of the tiny run, into ``folder/run``."""
    (folder / "empty.yaml").touch()
    return ["train", str(folder / "empty.yaml"), *TINY, f"out={folder / 'run'}", *overrides]


def start(
    folder: Path,
    arguments: Sequence[str],
    *,
    name: str = "output.txt",
    environment: Mapping[str, str] | None = None,
    patch: Callable[[], object] | None = None,
) -> Started:
    """Run ``orthogan ARGUMENTS`` in a process of its own, after ``patch`` there."""
    assert orthogan.training  # imported here, once
    output = folder / name
    pid = os.fork()
    if pid:
        return Started(pid, output)
    code = 99
    try:
        os.setsid()
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.update(environment or {})
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.set_num_threads(1)
        if patch is not None:
            patch()
        code = cli.main(list(arguments))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start_two(
    folder: Path, arguments: Sequence[str], patches: Sequence[Callable[[], object] | None] = (None, None)
) -> list[Started]:
    """The same command as two processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        start(
            folder,
            arguments,
            name=f"output{rank}.txt",
            environment=common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            patch=patch,
        )
        for rank, patch in enumerate(patches)
    ]
