"""Run jobs in a separate process: each job is one line of JSON, and so is each answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO

from orthogan.memory import keep_freed_memory


class WorkerEnded(Exception):
    """The worker ended without an answer; ``code`` is its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"by signal {-code} (out of memory?)" if code < 0 else f"with exit code {code}")


class Worker:
    """A process that runs the module ``module``; it starts at the first message, and again after it has died.

    It runs in its own session, so that Ctrl-C reaches only this process, and uses the same module search path.

    Args:
        environment: environment variables to add to those of this process; None removes one.
        greeting: first message to each new process.
    """

    def __init__(self, module: str, environment: Mapping[str, str | None], greeting: Any = None) -> None:
        self.module, self.environment, self.greeting = module, environment, greeting
        self._process: subprocess.Popen[bytes] | None = None

    def send(self, message: Any) -> None:
        """Send ``message``; if the worker has died, ``receive`` reports it."""
        if self._process is None:
            path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
            variables = {**os.environ, "PYTHONPATH": path, **self.environment}
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self.module],  # -P: files in the current folder must not hide modules
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={name: value for name, value in variables.items() if value is not None},
                start_new_session=True,
            )
            if self.greeting is not None:
                self.send(self.greeting)
        _, stdin, _ = self._parts()
        with suppress(BrokenPipeError):
            write_message(stdin, message)

    def fileno(self) -> int:
        """Return the file descriptor of the answers, for ``select``."""
        return self._parts()[2].fileno()

    def receive(self) -> Any:
        """Return the answer to the current message.

        Raises:
            WorkerEnded: it ended without an answer.
        """
        if line := self._parts()[2].readline():
            return json.loads(line)
        raise WorkerEnded(self.close())

    def close(self, seconds: float | None = None) -> int:
        """Close its input so that it ends, and kill it after ``seconds``; returns its exit code (0 if none ran)."""
        if self._process is None:
            return 0
        process, stdin, stdout = self._parts()
        self._process = None
        with suppress(BrokenPipeError):
            stdin.close()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        code = process.wait()
        stdout.close()
        return code

    def kill(self) -> None:
        """End the process and its children at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self.close()

    def _parts(self) -> tuple[subprocess.Popen[bytes], Any, Any]:
        assert self._process is not None
        return self._process, self._process.stdin, self._process.stdout


def open_replies() -> BinaryIO:
    """In a worker: open the stream for answers; everything else that is printed goes to stderr from now on."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    keep_freed_memory()
    return replies


def write_message(stream: BinaryIO, message: Any) -> None:
    """Write one line."""
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def read_messages() -> Iterator[Any]:
    """In a worker: yield messages until the input is closed; nothing is read ahead, so ``select`` sees the rest."""
    left = b""
    while True:
        while b"\n" not in left:
            part = os.read(0, 1 << 16)
            if not part:
                return
            left += part
        line, _, left = left.partition(b"\n")
        yield json.loads(line)
