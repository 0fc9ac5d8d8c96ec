"""The entry point of the command line: runs one command and turns every error into a message and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from orthogan.cli.parser import commands, parse
from orthogan.errors import EXIT_BUG, EXIT_DONE, EXIT_USER, Diverged, PeerFailed, Stopped, UserError
from orthogan.interrupts import Interrupts
from orthogan.io.read import printable
from orthogan.io.terminal import Plain
from orthogan.memory import keep_freed_memory, out_of_memory
from orthogan.progress import TICKS

LONGEST_MESSAGE = 4000  # characters; messages quote files, which may contain words of any length
OUTPUTS = ("out", "tune", "plot", "nearest", "save_directions", "save_reference")  # options; checked before long work
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errors that the user has to fix, wherever they occur


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, one of ``orthogan.errors.EXIT_*``."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: `orthogan config >&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # for paths that are not UTF-8 and terminals that only support ASCII
            stream.reconfigure(errors="backslashreplace")
    out, err = Plain(sys.stdout), Plain(sys.stderr)
    with plain_warnings(), redirect_stdout(out), redirect_stderr(err), Interrupts() as interrupts:  # pyright: ignore[reportArgumentType]
        return _run(argv, interrupts)


def _run(argv: Sequence[str] | None, interrupts: Interrupts) -> int:
    try:
        try:
            arguments = parse(argv)
        finally:  # of the help
            sys.stdout.flush()
        try:
            os.getcwd()  # numerical libraries end the process without it
        except FileNotFoundError:
            raise UserError(
                "the current folder was deleted or moved; cd to another one, or to the same one again"
            ) from None
        interrupts.command = arguments.command
        outputs = [path for name in OUTPUTS if isinstance(path := vars(arguments).get(name), str)]
        if outputs:
            from orthogan.io.write import check_writable  # slow to import

            for path in outputs:
                check_writable(path)
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # we report lost processes ourselves
        keep_freed_memory()
        with following_load():
            commands()[arguments.command].run(arguments)
        sys.stdout.flush()
    except (UserError, Stopped, PeerFailed) as error:
        return _ended(str(error), error.exit_code)
    except Diverged as error:
        return _ended(f"training diverged: {error}; the last good checkpoint is kept", error.exit_code)
    except KeyboardInterrupt as error:
        return _ended(*interrupts.outcome(error))
    except Exception as error:
        if (reason := _outside(error)) is not None:
            return _ended(reason, EXIT_USER)
        traceback.print_exc()
        if (place := _own_code(error)) is not None:
            return _ended(f"your code in {place} failed with {type(error).__name__}; see the text above", EXIT_USER)
        return _ended("this is a bug in orthogan; please report it together with the text above", EXIT_BUG)
    return EXIT_DONE


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Context in which warnings to users are printed as ``orthogan: warning: TEXT``, without the line of code."""
    usual = warnings.formatwarning

    def plain(message: Warning | str, category: type[Warning], *where: Any, **line: Any) -> str:
        if category is UserWarning:
            return f"orthogan: warning: {message}\n"
        return usual(message, category, *where, **line)

    warnings.formatwarning = plain
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextmanager
def following_load() -> Iterator[None]:
    """In the block, the number of threads follows the load of the machine whenever a long job makes progress.

    Training has its own ``ThreadCount``, which may be fixed by its config.
    """
    with ExitStack() as stack:

        def tick() -> None:
            if "torch" not in sys.modules or threading.current_thread() is not threading.main_thread():
                return
            from orthogan.process_group import several  # this and the next import torch
            from orthogan.threads import ThreadCount

            if ThreadCount.active is None:
                stack.enter_context(ThreadCount(follow=not several()))
            else:
                ThreadCount.active.check()

        TICKS.append(tick)
        stack.callback(TICKS.remove, tick)
        yield


def _ended(line: str, code: int) -> int:
    if len(line) > LONGEST_MESSAGE:  # the file and the fix are at its two ends
        line = f"{line[: LONGEST_MESSAGE // 2]} … {line[-LONGEST_MESSAGE // 2 :]}"
    print(f"orthogan: {line}", file=sys.stderr)
    return code


def _own_code(error: Exception) -> str | None:
    """Return file and line of the last frame that is neither of orthogan nor of an installed package, or None."""
    import sysconfig
    from pathlib import Path

    installed = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    libraries = [Path(path).resolve() for path in (*installed, Path(__file__).parents[1])]
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        name = frame.f_code.co_filename
        if not name.startswith("<") and not any(map(Path(name).resolve().is_relative_to, libraries)):
            return f"{printable(name)}, line {line}"
    return None


def _outside(error: Exception) -> str | None:
    """Return the message for an error of the machine (memory, disk, path), or None for a bug."""
    if out_of_memory(error):
        return f"out of memory; reduce the batch size, the number of images or the size of the model ({error})"
    if isinstance(error, OSError) and error.strerror:
        if error.errno in DISK:
            return f"cannot write {printable(error.filename or 'the output')}: {error.strerror}"
        return f"{printable(error.filename)}: {error.strerror}" if error.filename else error.strerror
    return None
