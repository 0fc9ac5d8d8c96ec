"""Image files that are decoded as they are read, and the policy for those that cannot be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch.utils.data import get_worker_info

from orthogan.data.decode import UnreadableImage, decode
from orthogan.data.files import Entry, FileStore
from orthogan.data.folder_labels import Labelling
from orthogan.data.hashing import ContentHash
from orthogan.data.source import BadFile, ImageSource
from orthogan.errors import UserError
from orthogan.io.read import printable

log = logging.getLogger("orthogan.data")


class BadFiles:
    """Counts the unreadable files of a set of ``total`` and decides when they are too many.

    ``policy`` ``skip``: each is named once in the log, UserError when they are more than ``limit`` (a share, 0 to 1)
    of all; ``error``: UserError at the first.
    """

    def __init__(self, where: str, total: int, policy: Literal["skip", "error"], limit: float) -> None:
        if policy not in ("skip", "error"):
            raise UserError(f"data.bad_images: must be 'skip' or 'error', not {policy!r}")
        if not 0 <= limit <= 1:
            raise UserError(f"data.bad_limit: must be from 0 to 1, not {limit}")
        self.where, self.total, self.policy, self.limit = where, total, policy, limit
        self.allowed = int(limit * total + 1e-9) if policy == "skip" else 0
        self.seen: dict[str, str] = {}

    def add(self, files: Sequence[BadFile]) -> None:
        """Take note of unreadable files; raises UserError when the policy says so."""
        for name, reason in files:
            if name in self.seen:
                continue
            self.seen[name] = reason
            if self.policy == "error":
                raise UserError(
                    f"{self.where}: {printable(name)} cannot be read: {reason}. "
                    "Mend or remove it, or set data.bad_images to skip"
                )
            log.warning("%s: skipping %s: %s", self.where, printable(name), reason)
            if len(self.seen) > self.allowed:
                listed = "; ".join(f"{printable(n)} ({r})" for n, r in list(self.seen.items())[:10])
                raise UserError(
                    f"{self.where}: at least {len(self.seen)} of {self.total} files cannot be read, more than "
                    f"data.bad_limit = {self.limit:g} allows: {listed}. Mend or remove them, or raise the limit"
                )


class FileSource(ImageSource):
    """Files of a store, decoded on every read; see ``orthogan.data.folder`` for how they are found.

    An unreadable file is replaced by the next readable one in the order of the list, so that what stands at an
    index depends on the files alone. In a worker process it is kept for ``take_bad``; elsewhere it is counted now.
    """

    def __init__(
        self,
        name: str,
        store: FileStore,
        entries: Sequence[Entry],
        labelling: Labelling,
        *,
        resolution: int,
        channels: int,
        bad: BadFiles,
    ) -> None:
        self.name, self.resolution, self.channels = name, resolution, channels
        self.store, self.entries, self.bad = store, list(entries), bad
        self.labels, self.class_names = labelling
        self.num_classes = len(self.class_names)
        self._pending: list[BadFile] = []

    def __len__(self) -> int:
        return len(self.entries)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Channels last in memory, as decoders give them.
        images = np.empty((len(indices), self.resolution, self.resolution, self.channels), np.uint8).transpose(
            0, 3, 1, 2
        )
        labels = np.empty(len(indices), np.int64)
        for row, index in enumerate(indices):
            images[row], labels[row] = self._first_good(int(index))
        if get_worker_info() is None:
            self.report_bad(self.take_bad())
        return images, labels

    def _first_good(self, index: int) -> tuple[np.ndarray, int]:
        for step in range(self.bad.allowed + 1):
            place = (index + step) % len(self.entries)
            name = self.entries[place].name
            try:
                decoded = decode(self.store.read(name), resolution=self.resolution, channels=self.channels)
            except UserError:
                raise
            except Exception as error:
                reason = str(error) if isinstance(error, UnreadableImage) else f"{type(error).__name__}: {error}"
                self._pending.append(BadFile(name, reason))
            else:
                return decoded.array, int(self.labels[place])
        # More in a row than are allowed in all: the main process would stop at this anyway.
        failed, self._pending = self._pending, []
        self.bad.add(failed)
        raise UserError(f"{self.store.path}: {printable(self.entries[index].name)} and what follows cannot be read")

    def take_bad(self) -> list[BadFile]:
        taken, self._pending = self._pending, []
        return taken

    def report_bad(self, files: Sequence[BadFile]) -> None:
        self.bad.add(files)

    def fingerprint(self) -> str:
        """Hash of names, sizes, labels and transform: the content itself would take a pass over all files."""
        digest = ContentHash().text("centre crop, lanczos", self.resolution, self.channels, *self.class_names)
        for entry in self.entries:
            digest.text(entry.name, entry.size)
        return digest.array(self.labels).hexdigest()
