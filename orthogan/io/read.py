"""Safe reading of untrusted files: regular files of limited size only, and errors that name the file."""

from __future__ import annotations

import gzip
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from orthogan.arguments import shown as shown
from orthogan.arguments import some_path
from orthogan.errors import UserError

LARGEST_FILE = 1 << 29  # default limit for the size of a file [bytes]
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
    """Return ``name`` as text that is safe in logs and terminals: control characters and invalid bytes are escaped."""
    text = str(name)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def user_path(path: str | os.PathLike[str]) -> Path:
    """Expand ``~`` in ``path``. Raises UserError for the home folder of an unknown user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{printable(path)}: no such user; write the full path") from error


def in_home(text: str) -> str:
    """Expand ``~`` or ``~/`` at the beginning of ``text``, which shells leave as it is in ``--out=~/x``."""
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def cache_folder() -> Path:
    """Return $ORTHOGAN_CACHE, or ``orthogan`` in the user's cache folder.

    A user without a home folder, as in some containers, has one in the folder of temporary files.

    Raises:
        UserError: that one belongs to another user.
    """
    if chosen := os.environ.get("ORTHOGAN_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "orthogan"
    try:
        return Path.home() / ".cache" / "orthogan"
    except RuntimeError:  # no HOME, and no entry in /etc/passwd
        import tempfile  # slow to import

        place = Path(tempfile.gettempdir()) / f"orthogan-{os.getuid()}"
        if os.path.lexists(place) and place.lstat().st_uid != os.getuid():
            raise UserError(
                f"{place}: belongs to another user; set ORTHOGAN_CACHE to a folder for cached results"
            ) from None
        return place


class UnreadableFile(UserError):
    """A file that cannot be read; ``reason`` is the message without the path."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{printable(path)}: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:  # it is sent between processes
        return UserError, self.args


def read_error(path: str | os.PathLike[str], error: Exception) -> UnreadableFile:
    """Return the error for the user after a failed attempt to read ``path``."""
    if isinstance(error, FileNotFoundError):
        return UnreadableFile(path, "no such file")
    if isinstance(error, PermissionError):
        return UnreadableFile(path, "permission denied; check the permissions of the file and its folders")
    return UnreadableFile(path, f"cannot be read ({describe_error(error)})")


def describe_error(error: BaseException) -> str:
    """Return the first line of the message of an exception, or its type if the message is empty."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return printable((text.strip().splitlines() or [type(error).__name__])[0])


@contextmanager
def parsing(where: object, expected: str) -> Iterator[None]:
    """Context that turns any exception of a parser into a UserError, because they have no common base class.

    ``where``: the file, ``expected``: what it should be, such as "an HDF5 file". Keep the block small.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno:  # an error of the system, not of the parser
            raise read_error(str(where), error) from error
        message = (
            f"{printable(where)}: is damaged, or is not {expected} ({describe_error(error)}); copy or download it again"
        )
        raise UserError(message) from error


def exists(path: str | os.PathLike[str], kind: Literal["file", "folder"]) -> bool:
    """Whether a regular file or a folder exists at ``path``. Raises UserError if this cannot be determined."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # such as a name that is too long, or contains NUL
        raise read_error(path, error) from error
    return stat.S_ISREG(mode) if kind == "file" else stat.S_ISDIR(mode)


def check_regular(path: str | os.PathLike[str]) -> int:
    """Return the size of a regular file [bytes], for readers that open paths themselves; else raise UserError."""
    try:
        status = os.stat(some_path("path", path))  # an integer would be a file that is open already
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise read_error(path, error) from error
    return _size(path, status)


def _size(path: str | os.PathLike[str], status: os.stat_result) -> int:
    if not stat.S_ISREG(status.st_mode):
        what = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise UnreadableFile(path, f"this is {what}, not a regular file")
    return status.st_size


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file for reading, unbuffered; never blocks on a pipe or a device.

    Raises UserError for anything else, and if the file is missing or not readable.
    """
    check_regular(path)  # before opening, which has side effects on some devices
    try:
        file = open(os.open(path, _FLAGS), "rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise read_error(path, error) from error
    try:
        _size(path, os.fstat(file.fileno()))  # check the opened file: the name may have been replaced since
    except BaseException:
        file.close()
        raise
    return file


def read_regular(path: str | os.PathLike[str], limit: int = LARGEST_FILE) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises UserError naming the file if it is missing, unreadable, larger, or a folder, named pipe, socket or device.
    """
    with open_regular(path) as file:
        pieces: list[bytes] = []
        try:
            size = os.fstat(file.fileno()).st_size
            length = 0
            while size <= limit and length <= limit:  # a file may grow, and files in /proc claim to be empty
                piece = file.read(max(min(size, limit) - length, _PIECE))
                if piece is None:
                    raise BlockingIOError("it is currently empty")
                if not piece:
                    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces.append(piece)
                length += len(piece)
        except OSError as error:
            raise read_error(path, error) from error
    size_in_words = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit} bytes"
    raise UnreadableFile(path, f"is larger than {size_in_words}, the limit for this kind of file")


def read_packed(path: str | os.PathLike[str], header: int, size: Callable[[bytes], int]) -> bytearray:
    """Read a regular file, unpacking it if its name ends in .gz.

    ``size`` computes the length of the whole content from its first ``header`` bytes [bytes]; at most one byte more is
    unpacked, and nothing if it is more than ``LARGEST_FILE``. Raises UserError naming the file.
    """
    with open_regular(path) as raw, parsing(path, "a complete file"):
        file = gzip.GzipFile(fileobj=raw) if str(path).endswith(".gz") else raw
        first = file.read(header) or b""
        expected = size(first)
        if expected > LARGEST_FILE:
            raise UnreadableFile(
                path, f"claims to hold {expected >> 20:,} MiB; at most {LARGEST_FILE >> 20} MiB are supported"
            )
        content = bytearray(first)
        while piece := file.read(min(expected + 1 - len(content), 1 << 24)) if len(content) <= expected else b"":
            content += piece
        return content


def parse_json(text: str | bytes, source: object) -> Any:
    """Parse JSON text. Raises UserError, naming ``source``, for anything that is not JSON."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise UserError(f"{printable(source)}: is not valid JSON (nested too deeply)") from error
    except ValueError as error:  # also bytes that are not UTF-8, and integers with thousands of digits
        raise UserError(f"{printable(source)}: is not valid JSON ({printable(str(error))})") from error


def read_json(path: str | os.PathLike[str], limit: int = LARGEST_FILE) -> Any:
    """Read a JSON file; raises as ``read_regular`` and ``parse_json``."""
    return parse_json(read_regular(path, limit), path)
