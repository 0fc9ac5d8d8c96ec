"""Locks that allow only one process at a time in a folder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.io.write import disk_errors

NAME = ".lock"
_held: set[int] = set()  # descriptors


def _forget() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


# a lock lasts until its last descriptor is closed: worker processes that outlive their parent must not keep it
os.register_at_fork(after_in_child=_forget)


@contextmanager
def locked(folder: Path, advice: str) -> Iterator[None]:
    """Context that only one process at a time can enter for each ``folder``, which is created if it is missing.

    The lock is on the file ``.lock`` and always ends with the process. The file and empty folders are deleted at the
    end.

    Args:
        advice: what the user can do instead of waiting for the other process.

    Raises:
        UserError: another process holds the lock; the message names its process ID.
        CannotWrite: the folder cannot be written.
    """
    missing = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    handle, owner = _claim(folder, advice), os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:  # not a process that was forked since
            _release(folder, handle, missing)


def _release(folder: Path, handle: int, made: list[Path]) -> None:
    _held.discard(handle)
    with suppress(OSError):
        (folder / NAME).unlink()
    os.close(handle)
    with suppress(OSError):  # not empty
        for place in made:
            place.rmdir()


def _claim(folder: Path, advice: str) -> int:
    """Return the descriptor that holds the lock."""
    file = folder / NAME
    with disk_errors(file):
        while True:
            handle = _open(file)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = os.pread(handle, 200, 0).decode(errors="replace").strip() or "another process"
                os.close(handle)
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    busy = f"{folder} is in use by {printable(owner)}; wait for it, or {advice}"
                    raise UserError(busy) from None
                print(
                    f"orthogan: {folder}: this file system does not support locks; run only one process there",
                    file=sys.stderr,
                )
                return os.open(folder, os.O_RDONLY)
            with suppress(FileNotFoundError):  # its owner has just deleted it
                if os.path.samestat(os.fstat(handle), file.stat()):
                    if os.access(file, os.W_OK):
                        os.ftruncate(handle, 0)
                        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
                        _held.add(handle)
                        return handle
                    file.unlink()  # a killed process of another user left it
            os.close(handle)


def _open(file: Path) -> int:
    flags = os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(file, os.O_RDWR | flags, 0o666)
    except PermissionError:
        return os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
