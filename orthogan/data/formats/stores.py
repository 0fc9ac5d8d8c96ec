"""Stores of image files: a folder tree or a zip archive, read by name from any process or thread."""

from __future__ import annotations

import os
import zipfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from orthogan.errors import UserError
from orthogan.io.hashing import ContentHash, hash_files
from orthogan.io.read import UnreadableFile, check_regular, exists, parsing, printable, read_regular

_FORMATS = "png jpg jpeg jpe jfif webp avif bmp dib gif tif tiff ppm pgm pbm pnm tga jp2 j2k qoi"
IMAGE_ENDINGS = frozenset(f".{ending}" for ending in _FORMATS.split(" "))
_OTHERS = "heic heif hif jxl svg psd xcf exr hdr pcx ico dng nef nrw cr2 cr3 crw arw srf raf orf rw2 pef srw x3f 3fr"
UNREAD_ENDINGS = frozenset(f".{ending}" for ending in _OTHERS.split(" "))  # images of formats that are not read
LARGEST_IMAGE = 1 << 28  # a larger image file is a mistake or an attack [bytes]


class Entry(NamedTuple):
    """A file in a store: its name relative to the store, with forward slashes, and its size in bytes."""

    name: str
    size: int


def split_name(name: str) -> list[str]:
    """Split a name into its folders and the file; some archives made on Windows use backslashes."""
    return name.replace("\\", "/").split("/")


def is_image_name(name: str, endings: Container[str] = IMAGE_ENDINGS) -> bool:
    """Whether a file counts as an image by its extension; hidden files and macOS resource copies never do."""
    parts = split_name(name)
    if any(part.startswith(".") or part == "__MACOSX" for part in parts):
        return False
    return os.path.splitext(name)[1].lower() in endings


def other_formats(names: Iterable[str]) -> str:
    """Say which of these files are images of formats that are not read, such as ``.heic (3)``; "" for none."""
    found = Counter(os.path.splitext(name)[1].lower() for name in names if is_image_name(name, UNREAD_ENDINGS))
    return ", ".join(f"{ending} ({count:,})" for ending, count in sorted(found.items()))


class FileStore(ABC):
    """Named files under ``path``."""

    path: Path

    @abstractmethod
    def entries(self) -> list[Entry]:
        """All files, hidden ones too, sorted by name."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of one file. Raises UnreadableFile; a damaged archive can raise other types."""

    @abstractmethod
    def content_hash(self, names: Sequence[str]) -> str:
        """Return a hash of the content of the files, in this order; it does not depend on where they are stored."""


class FolderStore(FileStore):
    """A folder with everything below it; links are followed, and each folder is visited once.

    A folder that is also reached by links has its own name. Of several links to a folder elsewhere, the first by name
    counts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> list[Entry]:
        """All files below the folder, also behind links, sorted by path."""
        found: list[Entry] = []
        visited: set[tuple[int, int]] = set()
        pending, links = [("", self.path)], list[tuple[str, Path]]()
        while pending or links:
            if not pending:  # all folders that can be reached without further links are known
                links.sort(reverse=True)
                pending.append(links.pop())
            prefix, folder = pending.pop()
            try:
                status = folder.stat()
                if (status.st_dev, status.st_ino) in visited:
                    continue
                visited.add((status.st_dev, status.st_ino))
                with os.scandir(folder) as items:
                    for item in items:
                        if _is_folder(item):
                            place = (f"{prefix}{item.name}/", Path(item.path))
                            (links if item.is_symlink() else pending).append(place)
                        else:
                            found.append(Entry(prefix + item.name, _size(item)))
            except OSError as error:
                raise UserError(
                    f"{printable(folder)}: cannot be listed ({error.strerror}); check its permissions"
                ) from error
        return sorted(found)

    def read(self, name: str) -> bytes:
        """The bytes of a file of at most ``LARGEST_IMAGE`` bytes."""
        return read_regular(self.path / name, LARGEST_IMAGE)

    def content_hash(self, names: Sequence[str]) -> str:
        """One hash of the bytes of these files."""
        return hash_files([self.path / name for name in names])


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:  # for example a link to itself: an unreadable file
        return False


def _size(item: os.DirEntry[str]) -> int:
    try:
        return item.stat().st_size
    except OSError:  # a broken link: reading it fails later, where the policy for unreadable files applies
        return 0


class ZipStore(FileStore):
    """A zip archive, opened once per process: a handle shared across a fork would share its file position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._archive: zipfile.ZipFile | None = None
        self._process = -1

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])

    def _open(self) -> zipfile.ZipFile:
        if self._archive is None or self._process != os.getpid():
            check_regular(self.path)
            with parsing(self.path, "a zip archive"):
                self._archive = zipfile.ZipFile(self.path)
            self._process = os.getpid()
        return self._archive

    def entries(self) -> list[Entry]:
        """All files in the archive, sorted by path."""
        with self._lock:
            archive = self._open()
        files = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
        return sorted(Entry(name, size) for name, size in files.items())

    def read(self, name: str) -> bytes:
        """The unpacked bytes of a file of at most ``LARGEST_IMAGE`` bytes."""
        with self._lock:
            archive = self._open()
            size = archive.getinfo(name).file_size
            if size > LARGEST_IMAGE:
                raise UnreadableFile(name, f"unpacks to {size >> 20} MiB")
            # The lock is held while reading so that only one thread uses the file object of the archive.
            return archive.read(name)

    def content_hash(self, names: Sequence[str]) -> str:
        """Return a hash of the checksums and sizes listed in the archive, which takes no time."""
        with self._lock:
            infos = [self._open().getinfo(name) for name in names]
        return ContentHash().text(*(f"{info.CRC:08x} {info.file_size}" for info in infos)).hexdigest()


def open_store(path: Path) -> FileStore:
    """Open the store at ``path``. Raises UserError if there is none."""
    if exists(path, "folder"):
        return FolderStore(path)
    if not path.exists():
        raise UserError(f"{printable(path)}: no such folder or zip file; check data.path")
    check_regular(path)
    if path.suffix.lower() != ".zip":
        what = "one image" if is_image_name(path.name) else "neither a folder nor a .zip file"
        raise UserError(f"{printable(path)}: this is {what}; data.path must name a folder or a .zip file of images")
    return ZipStore(path)
