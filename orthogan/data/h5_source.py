"""Images in an HDF5 file, read as they are needed. Needs the extra ``orthogan[h5]``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from orthogan.data.hashing import ContentHash
from orthogan.data.resize import fit_arrays
from orthogan.data.source import ImageSource
from orthogan.errors import UserError


class H5Contents(NamedTuple):
    """The image data set's name and length, whether its pixels are 0 and 1, and the annotations, if any."""

    key: str
    length: int
    binary: bool
    annotation: np.ndarray | None


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise UserError("reading .h5 files needs h5py: pip install 'orthogan[h5]'") from error
    return h5py


def _open(path: Path) -> Any:
    try:
        return _h5py().File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: cannot be opened as an HDF5 file ({error})") from error


def read_h5(path: Path, image_keys: Sequence[str], label_keys: Sequence[str]) -> H5Contents:
    """Look into an HDF5 file without reading its images. Raises UserError when it holds none."""
    with _open(path) as file:
        key = next((k for k in image_keys if k in file), None)
        if key is None:
            wanted = " or ".join(map(repr, image_keys))
            raise UserError(f"{path}: has no data set {wanted}; it holds {', '.join(sorted(file))}")
        images = file[key]
        label_key = next((k for k in label_keys if k in file), None)
        annotation = None if label_key is None else np.asarray(file[label_key])
        head = images[: min(64, len(images))]
        # dSprites stores zeros and ones, under the name "imgs".
        binary = key == "imgs" and head.size > 0 and head.max() <= 1
        return H5Contents(key, len(images), bool(binary), annotation)


class H5Source(ImageSource):
    """The images ``contents.key`` of an HDF5 file; opened once a process, since handles do not survive a fork.

    ``annotation``: the attributes labels, class_names, factors, factor_names and factor_sizes.
    A file whose chunks hold many images (3dshapes as published) is slow to read in random order.
    """

    def __init__(
        self, path: Path, contents: H5Contents, resolution: int, channels: int, annotation: dict[str, Any]
    ) -> None:
        if contents.length == 0:
            raise UserError(f"{path}: there are no images in it")
        self.name, self.path, self.contents = path.stem, path, contents
        self.resolution, self.channels = resolution, channels
        self.class_names = annotation["class_names"]
        self.num_classes = len(self.class_names)
        self.factor_names, self.factor_sizes = annotation["factor_names"], annotation["factor_sizes"]
        self._factors = annotation["factors"]
        labels = annotation["labels"]
        self.labels = np.zeros(contents.length, np.int64) if labels is None else labels
        self._file: Any = None
        self._process = -1

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_process": -1}

    def __len__(self) -> int:
        return self.contents.length

    @property
    def factors(self) -> np.ndarray | None:
        return self._factors

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._file is None or self._process != os.getpid():
            self._file, self._process = _open(self.path), os.getpid()
        # HDF5 wants its indices increasing and distinct.
        distinct, place = np.unique(indices, return_inverse=True)
        if len(distinct) and distinct[-1] - distinct[0] + 1 == len(distinct):
            stored = self._file[self.contents.key][int(distinct[0]) : int(distinct[-1]) + 1]
        else:
            stored = self._file[self.contents.key][distinct]
        if self.contents.binary:
            stored = stored * np.uint8(255)
        fitted = fit_arrays(stored, resolution=self.resolution, channels=self.channels, name=str(self.path))
        return fitted[place], self.labels[indices]

    def fingerprint(self) -> str:
        """Hash of the file's size, the annotations, the transform and 64 images spread over the file."""
        digest = ContentHash().text("centre crop, lanczos", self.resolution, self.channels, *self.class_names)
        digest.text(self.path.stat().st_size, self.contents.key).array(self.labels)
        if self._factors is not None:
            digest.array(self._factors)
        return digest.array(self.read(np.linspace(0, len(self) - 1, 64).astype(np.int64))[0]).hexdigest()
