"""Reading files that anyone may have written: regular files only, of bounded size, and errors that name the file."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from orthogan.errors import UserError

LARGEST_FILE = 1 << 29  # a larger file is refused where no other limit is given [bytes]
_PIECE = 1 << 16  # [bytes]
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def printable(name: object) -> str:
    """``name`` as text that is safe in any log or terminal: control characters and undecodable bytes are escaped."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def user_path(path: str | os.PathLike[str]) -> Path:
    """``path`` with ``~`` expanded. Raises UserError for the home folder of an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{printable(path)}: there is no such user; write the path in full") from error


def read_error(path: str | os.PathLike[str], error: Exception) -> UserError:
    """What a failed reading of ``path`` means to the user, without the words of the operating system's exception."""
    if isinstance(error, FileNotFoundError):
        return UserError(f"{printable(path)}: there is no such file")
    if isinstance(error, PermissionError):
        return UserError(f"{printable(path)}: permission denied; check the permissions of the file and its folders")
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return UserError(f"{printable(path)}: cannot be read ({printable(reason)})")


def check_regular(path: str | os.PathLike[str]) -> int:
    """The size of a regular file [bytes], for readers that open a path themselves. Raises UserError for others."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise read_error(path, error) from error
    return _size(path, status)


def _size(path: str | os.PathLike[str], status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode):
        what = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise UserError(f"{printable(path)}: this is {what}, not a regular file")
    return status.st_size


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file opened for reading, unbuffered; never waits for a pipe or a device.

    Raises UserError for anything else, and where the file is missing or may not be read.
    """
    check_regular(path)  # before it is opened: opening alone has an effect on some devices
    try:
        file = open(os.open(path, _FLAGS), "rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise read_error(path, error) from error
    try:
        _size(path, os.fstat(file.fileno()))  # of the opened file: the name may have been replaced since
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], limit: int = LARGEST_FILE) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises UserError naming the file: missing, unreadable, larger, or a folder, named pipe, socket or device.
    """
    with open_regular(path) as file:
        pieces: list[bytes] = []
        try:
            size = os.fstat(file.fileno()).st_size
            length = 0
            while size <= limit and length <= limit:  # a file may grow, and those of /proc say that they are empty
                piece = file.read(max(min(size, limit) - length, _PIECE))
                if piece is None:
                    raise BlockingIOError("it has no content now")
                if not piece:
                    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.append(piece)
                length += len(piece)
        except OSError as error:
            raise read_error(path, error) from error
    raise UserError(f"{printable(path)}: is larger than {_in_words(limit)}, the limit for this kind of file")


def _in_words(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size} bytes"


def parse_json(text: str | bytes, source: object) -> Any:
    """The value of a JSON text. Raises UserError, naming ``source``, for anything that is not JSON."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UserError(f"{printable(source)}: is not valid JSON (nested too deep)") from error
    except ValueError as error:  # also bytes that are not UTF-8, and integers of thousands of digits
        raise UserError(f"{printable(source)}: is not valid JSON ({printable(str(error))})") from error


def read_json(path: str | os.PathLike[str], limit: int = LARGEST_FILE) -> Any:
    """The value of a JSON file; errors as ``read_regular`` and ``parse_json``."""
    return parse_json(read_regular(path, limit), path)
