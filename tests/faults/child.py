"""A command of orthogan in a forked child of a warm process, so that a start costs 0.3 s instead of 10 s.

The child is what the shell would start: a session of its own, its own working folder, output to a file, and the exit
code of ``orthogan.cli.main.main``. The warm process itself computes nothing and opens no file of a run.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

OUTPUT = "output.txt"
ALLOWED = (0, 2, 3, 4, 130)  # the exit codes that the guide promises; 1 is a bug


def warm() -> None:
    """Import what the commands import."""
    import torch
    import torch._dynamo  # by the first step of an optimizer
    import torch.utils.tensorboard

    import orthogan.cli._scores
    import orthogan.cli.main
    import orthogan.evaluation.measure
    import orthogan.studies.compare
    import orthogan.training  # noqa: F401
    from orthogan import process_group

    torch.set_num_threads(1)
    process_group.MEETING = timedelta(seconds=10)  # a process whose partner was killed at its start waits for this long


_running: set[Child] = set()


def end_all() -> None:
    """End the commands that still run: each has a session of its own, and Ctrl-C does not reach it."""
    for child in list(_running):
        child.kill()


class Child:
    """A running command.

    Args:
        words: what follows ``orthogan``.
        folder: the working folder.
        output: name of the file in ``folder`` that stdout and stderr are appended to.
        environment: variables over those of this process.
        prepare: called in the child before the command, such as to set a limit.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        *,
        output: str = OUTPUT,
        environment: Mapping[str, str] | None = None,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self.words = list(words)
        self.output = folder / output
        self.code: int | None = None
        self.late = 0.0  # seconds that were waited for in vain
        self.peak = 0  # largest resident memory of the child [bytes], known when it has ended
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            self._become(folder, environment or {}, prepare)
        _running.add(self)

    def ended(self) -> bool:
        """Whether the child has ended; ``code`` then holds its exit code, negative for a signal."""
        if self.code is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code, self.peak = os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024
                _running.discard(self)
        return self.code is not None

    def wait(self, seconds: float) -> int | None:
        """The exit code; where the child has not ended after ``seconds`` it is killed, and ``late`` tells."""
        end = time.monotonic() + seconds
        while not self.ended():
            if time.monotonic() > end:
                self.late = seconds
                self.kill()
                break
            time.sleep(0.005)
        return self.code

    def signal(self, number: int) -> None:
        """Send a signal to the child alone, as ``kill PID`` does."""
        if not self.ended():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it and the processes it has started, and wait for it."""
        self.signal(signal.SIGKILL)
        while not self.ended():
            time.sleep(0.002)
        for pid in self.others():
            os.kill(pid, signal.SIGKILL)

    def others(self) -> list[int]:
        """Processes of the child's session that still run."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.pid:
                try:
                    state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                except OSError:  # it ended meanwhile
                    continue
                if int(session) == self.pid and state != "Z":
                    found.append(int(entry.name))
        return found

    def said(self) -> str:
        """What it printed, and what earlier children with the same output file did."""
        return self.output.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")

    def _become(self, folder: Path, environment: Mapping[str, str], prepare: Callable[[], object] | None) -> None:
        code = 1
        try:
            os.setsid()
            os.chdir(folder)
            output = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for source, target in ((nothing, 0), (output, 1), (output, 2)):
                os.dup2(source, target)
            os.environ.update(environment)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            import orthogan.cli.main

            if prepare is not None:
                prepare()
            code = orthogan.cli.main.main(self.words)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)


def limit_memory(more: int) -> Callable[[], None]:
    """For ``prepare``: the child may take ``more`` bytes of address space beyond what it starts with."""

    def prepare() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return prepare


def limit_file(size: int) -> Callable[[], None]:
    """For ``prepare``: no file that the child writes may grow beyond ``size`` bytes; writing more fails as a full
    disk does.
    """

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return prepare
