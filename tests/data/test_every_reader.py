"""Damaged and hostile files: every reader gives images or the user's error, in bounded time and memory."""

from __future__ import annotations

import gzip
import io
import json
import resource
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from orthogan.data import ImageSource
from orthogan.data.formats.decode import UnreadableImage, decode
from orthogan.data.formats.matrices import read_idx, read_norb
from orthogan.data.sprites import render
from orthogan.errors import UserError
from tests.fixtures import sets

FORM = (8, 3, "skip", 1.0)
SECONDS = 120.0  # for one file; each takes milliseconds
MEBIBYTES = 700  # more than before, for all files of a test
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)


class Edit(NamedTuple):
    """One change of a file: ``place`` is a share of its length."""

    kind: str
    place: float
    data: bytes


EDITS = st.lists(
    st.builds(
        Edit,
        st.sampled_from(["flip", "flip", "write", "insert", "remove", "cut", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from([b"\xff" * 4, b"\0" * 4, b"9" * 8, b"\xff" * 8])),
    ),
    min_size=1,
    max_size=6,
)


def damaged(data: bytes, edits: list[Edit]) -> bytes:
    for kind, share, new in edits:
        place = int(share * len(data))
        if kind == "flip" and data:
            data = data[:place] + bytes([data[place] ^ (1 << new[0] % 8)]) + data[place + 1 :]
        elif kind == "write":
            data = data[:place] + new + data[place + len(new) :]
        elif kind == "insert":
            data = data[:place] + new + data[place:]
        elif kind == "remove":
            data = data[:place] + data[place + len(new) :]
        elif kind == "cut":
            data = data[:place]
        elif kind == "repeat":
            data = data[:place] + data[place : place + 64] * 2 + data[place + 64 :]
    return data


def picture(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.kron(IMAGES[0], np.ones((3, 4), np.uint8))).convert("RGB").save(
        buffer, form, exif=exif.tobytes(), **options
    )
    return buffer.getvalue()


def packed(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def saved(save: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def hdf5(**options: object) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("images", data=IMAGES, **options)
        file["labels"] = np.arange(6) % 2
    return buffer.getvalue()


def cars() -> bytes:
    car = saved(lambda b: savemat(b, {"im": np.zeros((8, 8, 3, 24, 4), np.uint8)}, do_compression=True))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("data/cars/car_001_mesh.mat")
        info.size = len(car)
        archive.addfile(info, io.BytesIO(car))
    return buffer.getvalue()


def idx(images: np.ndarray) -> bytes:
    return b"\0\0\x08\x03" + struct.pack(">III", *images.shape) + images.tobytes()


def matrix(images: np.ndarray) -> bytes:
    return struct.pack("<Iiiii", 0x1E3D4C55, 3, *images.shape) + images.tobytes()


def pictures_of(table: bytes) -> dict[str, bytes]:
    return {f"{k:05}/{k}.png": picture("PNG") for k in range(3)} | {"dataset.json": table}


TABLE = json.dumps({"labels": [[f"{k:05}/{k}.png", k % 2] for k in range(3)]}).encode()
CLASSES = np.array([[0, shape, 5, 7, 3, 4] for shape in (0, 1, 2)])
FILES: dict[str, tuple[str, bytes]] = {
    **{f"{form} picture": ("x.png", picture(form)) for form in ("PNG", "JPEG", "WEBP", "TIFF")},
    "GIF picture": ("x.gif", picture("GIF")),
    "BMP picture": ("x.bmp", picture("BMP")),
    "zip": ("a.zip", packed(pictures_of(TABLE))),
    "stored zip": ("a.zip", packed(pictures_of(TABLE), zipfile.ZIP_STORED)),
    "dataset.json": ("dataset.json", TABLE),
    "npz": ("a.npz", saved(lambda b: np.savez(b, images=IMAGES, labels=np.arange(6) % 2))),
    "packed npz": ("a.npz", saved(lambda b: np.savez_compressed(b, images=IMAGES, labels=np.arange(6) % 2))),
    "npy": ("a.npy", saved(lambda b: np.save(b, IMAGES))),
    "npy labels": ("a.labels.npy", saved(lambda b: np.save(b, np.arange(6) % 2))),
    "h5": ("a.h5", hdf5()),
    "chunked h5": ("a.h5", hdf5(chunks=(2, 8, 8), compression="gzip")),
    "idx": ("a", idx(IMAGES)),
    "gzipped idx": ("a.gz", gzip.compress(idx(IMAGES))),
    "smallnorb": ("a.mat", matrix(IMAGES)),
    "gzipped smallnorb": ("a.mat.gz", gzip.compress(matrix(IMAGES))),
    "cars3d": ("nips2015-analogy-data.tar.gz", cars()),
    "dsprites": (
        "d.npz",
        saved(lambda b: np.savez_compressed(b, imgs=render(CLASSES[:, 1:]), latents_classes=CLASSES)),
    ),
    "mpi3d": ("m.npz", saved(lambda b: np.savez(b, images=np.zeros((460_800, 1, 1, 3), np.uint8)))),
}


def opened(kind: str, path: Path) -> np.ndarray:
    """All that the reader of ``kind`` gives."""
    if kind.endswith("picture"):
        try:
            return decode(path.read_bytes(), resolution=8, channels=3).array
        except UnreadableImage as error:
            raise UserError(str(error)) from error
    if kind.endswith("idx"):
        return read_idx(path)
    if kind.endswith("smallnorb"):
        return read_norb(path)
    source: ImageSource
    if kind == "dataset.json":
        source = sets.opened("folder", path.parent, *FORM)
    elif kind.endswith("zip"):
        source = sets.opened("folder", path, *FORM)
    elif kind == "npy labels":
        source = sets.opened("array", path.with_name("a.npy"), *FORM, in_memory_limit=0)
    elif kind == "cars3d":
        source = sets.opened("cars3d", path, *FORM)
    elif kind == "dsprites":
        source = sets.opened("dsprites", path, *FORM)
    elif kind == "mpi3d":
        source = sets.opened("mpi3d", path, *FORM, in_memory_limit=0)
    else:
        source = sets.opened("array", path, *FORM, in_memory_limit=0)
    images, labels = source.read(np.arange(min(len(source), 10)))
    assert images.shape[1:] == (3, 8, 8)
    assert not source.num_classes or ((labels >= 0).all() and (labels < source.num_classes).all())
    return images


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("orthogan.data.sources.cars3d.SIZES", (4, 24, 1))
    for name, data in pictures_of(TABLE).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    np.save(tmp_path / "a.npy", IMAGES)
    return tmp_path


@pytest.mark.filterwarnings("ignore")  # Pillow's, about the damage
@pytest.mark.parametrize("kind", FILES)
def test_intact_files_are_read(place: Path, kind: str) -> None:
    name, data = FILES[kind]
    (place / name).write_bytes(data)
    assert opened(kind, place / name).size


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=30, deadline=None)
@given(edits=EDITS)
def test_damaged_files_give_images_or_the_users_error(place: Path, kind: str, edits: list[Edit]) -> None:
    name, data = FILES[kind]
    (place / name).write_bytes(damaged(data, edits))
    began, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(UserError):
        assert isinstance(opened(kind, place / name), np.ndarray)
    assert time.process_time() - began < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEBIBYTES << 10
