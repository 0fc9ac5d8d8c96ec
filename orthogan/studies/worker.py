"""The process that runs cells: it reads a line of JSON per cell and answers with the exit code.

It imports everything once and forks a child per cell, so a cell has no start-up cost and its own memory, and a crash
ends only that cell. This process computes nothing and never touches a GPU, so that its children can. The message
``stop`` makes the child save and exit; so does the end of the input, if the study was killed.
"""

from __future__ import annotations

import importlib
import math
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from orthogan.background import open_replies, read_messages, write_message
from orthogan.config.schema import Config
from orthogan.errors import EXIT_BUG, EXIT_DONE, CannotWrite, Diverged, UserError
from orthogan.io.lock import locked
from orthogan.studies.cells import StudyRun, finished, run_cell
from orthogan.studies.outcome import load
from orthogan.studies.pool import STOP
from orthogan.studies.study import get_study

OUTPUT = "output.txt"  # the output of the cell
RUNNING = ".running"  # holds the lock of the process that runs the cell
LOOK = 0.1  # seconds between looks at the child and at the input
GRACE = 10.0  # seconds that a cell has to save if the study was killed


def main() -> None:
    """Answer until the input is closed."""
    replies = open_replies()
    _import_all()
    for job in read_messages():
        if job == STOP:  # it came after the last cell had finished
            continue
        # imported here, so that later edits of its file have no effect; an error is reported by the child
        with suppress(Exception):
            for module in get_study(job["cell"]["study"]).imports:
                importlib.import_module(module)
        child = os.fork()
        if child == 0:
            os.close(replies.fileno())
            _child(job)
        code = _wait(child)
        with suppress(BrokenPipeError):  # the study was killed
            write_message(replies, {"code": code})


def _import_all() -> None:
    """Import what every cell needs, which each child would import again."""
    import accelerate  # noqa: F401
    import torch._dynamo  # noqa: F401  (imported by the first step of an optimizer)

    import orthogan.evaluation.measure
    import orthogan.training.run  # noqa: F401


def _child(job: dict[str, Any]) -> NoReturn:
    """Run the cell of ``job`` and end this process."""
    code = EXIT_BUG
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        if job["cwd"] is not None:  # that of a command on another machine
            os.chdir(job["cwd"])
            sys.path.insert(0, job["cwd"])
        cell = read_cell(job)
        cell.folder.mkdir(parents=True, exist_ok=True)
        output = os.open(cell.folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        with only_one(cell.folder):
            code = _run(cell, job["facts"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Wait until no other process runs the cell in ``folder``, such as one that is saving because its study was killed.

    The lock is a file in the folder, which processes on other machines see too.
    """
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder / RUNNING, ""))
                break
            except CannotWrite:
                raise
            except UserError:  # it is taken
                time.sleep(LOOK)
        yield


def _run(cell: StudyRun, facts: Mapping[str, Any]) -> int:
    """Run the cell, unless the process that this one waited for has finished it."""
    study, known = get_study(cell.study), load(cell.folder)
    if known is not None and known.definition == cell.definition() and finished(study, known):
        return Diverged.exit_code if known.status == "diverged" else EXIT_DONE
    return run_cell(study, cell, facts)


def read_cell(job: Mapping[str, Any]) -> StudyRun:
    """Return the cell of a message."""
    fields = job["cell"]
    return StudyRun(**fields | {"folder": Path(fields["folder"]), "config": Config.model_validate(fields["config"])})


def _wait(child: int) -> int:
    """Wait for ``child`` and return its exit code (negative: the signal that ended it); forward a request to stop."""
    source, end = [0], math.inf
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if select.select(source, [], [], LOOK)[0]:  # only STOP is sent while a cell runs
            os.kill(child, signal.SIGTERM)
            if not os.read(0, 1 << 16):  # the study was killed
                source, end = [], time.monotonic() + GRACE
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
