"""Atomic writing: a file is written under a temporary name, synced to disk and renamed.

Errors of the disk (full, read-only, no permission, …) become a ``CannotWrite`` that names the path.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orthogan.errors import CannotWrite, UserError
from orthogan.io.read import printable

if TYPE_CHECKING:
    from torch import Tensor

PathLike = str | os.PathLike[str]
LONGEST = 240  # bytes of a file name that can still be extended on every file system
ADVICE = {
    errno.ENOSPC: "free some space on this disk",
    errno.EDQUOT: "your disk quota is exceeded: delete other files or ask for more",
    errno.EFBIG: "it is larger than this system allows a file to be (ulimit -f)",
    errno.EROFS: "the disk is mounted read-only: choose another folder or mount it writable",
    errno.EACCES: "check the owner and the permissions of this path",
    errno.EPERM: "check the owner and the permissions of this path",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def write_bytes(path: PathLike, data: bytes) -> Path:
    """Write ``data`` to ``path``, creating its parent folders. Raises ``CannotWrite``."""
    with replacing(path) as partial:
        partial.write_bytes(data)
    return Path(path)


def write_text(path: PathLike, text: str) -> Path:
    """Write ``text`` to ``path`` in UTF-8, creating its parent folders. Raises ``CannotWrite``."""
    return write_bytes(path, text.encode("utf-8"))


def write_tensors(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write a safetensors file, creating its parent folders. Raises ``CannotWrite``.

    Tensors that share memory are written once each.
    """
    from safetensors.torch import save_file  # torch takes a second to import, and is rarely needed for writing

    with replacing(path) as partial:
        partial.touch()
        mode = stat.S_IMODE(partial.stat().st_mode)  # permissions from the umask; safetensors makes files private
        ready: dict[str, Tensor] = {}
        stored: set[int] = set()
        for name, tensor in tensors.items():
            data = tensor.detach().cpu().contiguous()
            if data.untyped_storage().data_ptr() in stored:  # tied parameters, or a view: the format has no shared data
                data = data.clone()
            stored.add(data.untyped_storage().data_ptr())
            ready[name] = data
        save_file(ready, partial, dict(metadata or {}) or None)
        partial.chmod(mode)
    return Path(path)


def append_json(path: PathLike, records: Iterable[Mapping[str, Any]], *, sync: bool = True) -> None:
    """Append a line of JSON for each record to ``path``: all of them or none.

    An incomplete last line (whose writer was killed) stays a separate line.

    Args:
        sync: return only after the lines are on disk.

    Raises:
        CannotWrite: nothing was added.
    """
    data = "".join(json.dumps(record) + "\n" for record in records).encode("utf-8")
    with disk_errors(path):
        _check_regular(Path(path))
        with Path(path).open("ab+", buffering=0) as stream:
            end = stream.seek(0, os.SEEK_END)
            if end:
                stream.seek(-1, os.SEEK_END)
                data = data if stream.read(1) == b"\n" else b"\n" + data
            try:
                left = memoryview(data)
                while left:
                    left = left[stream.write(left) :]
                if sync:
                    os.fsync(stream.fileno())
            except OSError:
                stream.truncate(end)
                raise


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Context that yields a temporary path, which replaces ``path`` at the end.

    The temporary path is in the folder ``.NAME.writing`` beside ``path``. A folder left by a killed process is emptied;
    a second process that writes the same file waits.

    Raises:
        CannotWrite: ``path`` is unchanged.
    """
    target = Path(path)
    with disk_errors(target):
        _check_regular(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch, handle = _claim(target)
        try:
            partial = scratch / target.name
            yield partial
            sync(partial)
            partial.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            os.close(handle)


@contextmanager
def disk_errors(path: PathLike, advice: str = "") -> Iterator[None]:
    """Context that turns disk errors into ``CannotWrite``: "cannot write PATH: REASON; ADVICE".

    Args:
        advice: what to do if the reason does not say it.
    """
    if "\0" in os.fspath(path):
        raise CannotWrite(
            f"cannot write {printable(path)}: file names cannot contain a NUL character; choose another name"
        )
    try:
        yield
    except Exception as error:
        if (
            not isinstance(error, OSError) and type(error).__name__ != "SafetensorError"
        ):  # safetensors may not be imported
            raise
        number = error_number(error)
        reason = os.strerror(number) if number else str(error)
        if number in (errno.EEXIST, errno.ENOTDIR) and (place := _first_that_is_no_folder(Path(path))):
            reason = f"{printable(place)} is not a folder"
        cure = ADVICE.get(number) or advice or "choose another folder"
        raise CannotWrite(f"cannot write {printable(path)}: {reason}; {cure}") from error


def check_writable(path: PathLike) -> None:
    """Check that the file or folder ``path`` can be written, before a long computation; nothing is left.

    Raises:
        CannotWrite: a folder is read-only or is a file, the name is too long, …
    """
    import tempfile  # slow to import

    target = Path(path)
    with disk_errors(target):
        with suppress(FileNotFoundError):
            os.lstat(target)  # the name may be too long, or a file may be in the place of a folder
            if not target.is_dir():
                _check_regular(target)
        folder = next(place for place in (target.absolute(), *target.absolute().parents) if place.is_dir())
        os.rmdir(tempfile.mkdtemp(".writing", ".", folder))


def check_folder(path: PathLike) -> None:
    """Check that ``path`` can be a folder for new files, before a long computation; as ``check_writable``."""
    check_writable(Path(path) / "file")


def _first_that_is_no_folder(path: Path) -> Path | None:
    """Return ``path`` or the first of its parents, from the root, that exists and is not a folder."""
    places = (*reversed(path.parents), path)
    return next((place for place in places if os.path.lexists(place) and not place.is_dir()), None)


def error_number(error: Exception) -> int:
    """Return the errno of a disk error; 0: not known."""
    if isinstance(error, OSError):
        return error.errno or 0
    found = re.search(r"\(os error (\d+)\)", str(error))  # safetensors only has it in its message
    return int(found[1]) if found else 0


def check_holds_only(folder: Path, names: Collection[str]) -> None:
    """Refuse a folder with other files than ``names``, before it is written to. Raises ``UserError``."""
    with disk_errors(folder):
        others = sorted(path.name for path in folder.iterdir() if path.name not in names)
    if others:
        raise UserError(f"{printable(folder)}: holds other files ({printable(others[0])}); name a new folder")


def remove(path: Path) -> None:
    """Delete ``path``: a file, a link, or a folder and its content; it need not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def free_name(path: Path) -> Path:
    """Return ``path``, or ``path-2``, ``path-3``, …: the first that does not exist."""
    number, free = 1, path
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def set_aside(path: Path, why: str) -> Path:
    """Rename ``path`` to ``damaged-NAME`` with a message on stderr. Raises ``CannotWrite``."""
    with disk_errors(path):
        place = path.rename(free_name(path.with_name(f"damaged-{path.name}")))
    print(f"orthogan: renamed {printable(path)} to {printable(place.name)}: {why}", file=sys.stderr)
    return place


def sync(path: Path) -> None:
    """Sync a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _check_regular(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise OSError("it is a device or a pipe, not a file")


def _claim(target: Path) -> tuple[Path, int]:
    """Return the empty temporary folder of ``target``, and the lock on it."""
    name = os.fsencode(target.name)
    short = target.name if len(name) <= LONGEST else hashlib.sha256(name).hexdigest()[:32]
    scratch = target.with_name(f".{short}.writing")
    while True:
        try:
            scratch.mkdir()
        except FileExistsError:
            if not scratch.is_dir() or scratch.is_symlink():
                try:
                    scratch.unlink(missing_ok=True)
                except OSError:
                    if not scratch.is_dir():  # or its owner has finished, and another one has started
                        raise
                continue
        try:
            handle = os.open(scratch, os.O_RDONLY)
        except FileNotFoundError:
            continue  # its owner has finished meanwhile
        with suppress(OSError):  # some network file systems do not support locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), scratch.stat()):
                for leftover in scratch.iterdir():
                    remove(leftover)
                return scratch, handle
        os.close(handle)
