from __future__ import annotations

import itertools
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from orthogan.data import Batches, ImageSource
from orthogan.data.array_files import open_array_file
from orthogan.data.folder import Form
from orthogan.data.h5_source import H5Source
from orthogan.data.sprites import render
from orthogan.errors import UserError

CLASSES = np.array(list(itertools.product((0, 1, 2), (0, 5), (0, 7, 13), (3, 20), (4,))))  # (36, 5)
STREAMED = 0


def everything(source: ImageSource) -> tuple[np.ndarray, np.ndarray]:
    return source.read(np.arange(len(source)))


def write_dsprites(path: Path, *, h5: bool = False) -> None:
    """The layout of the published file: a constant colour first, metadata as a pickled object."""
    rows = np.concatenate([np.zeros((len(CLASSES), 1), np.int64), CLASSES], axis=1)
    values = np.stack([np.ones(len(rows)), rows[:, 1] + 1, 0.5 + rows[:, 2] / 10, rows[:, 3] * 2 * np.pi / 39], axis=1)
    values = np.concatenate([values, rows[:, 4:] / 31], axis=1)
    pictures = render(CLASSES)
    if h5:
        with h5py.File(path, "w") as file:
            file["imgs"], file["latents/classes"], file["latents/values"] = pictures, rows, values
        return
    metadata = np.array({"title": "dSprites"}, dtype=object)
    np.savez_compressed(path, imgs=pictures, latents_classes=rows, latents_values=values, metadata=metadata)


@pytest.mark.parametrize("name", ["d.npz", "d.h5"])
def test_dsprites_layout(tmp_path: Path, name: str) -> None:
    write_dsprites(tmp_path / name, h5=name.endswith("h5"))
    source = open_array_file(tmp_path / name, Form(64, 1))
    images, labels = everything(source)
    np.testing.assert_array_equal(images[:, 0], render(CLASSES) * 255)
    np.testing.assert_array_equal(labels, CLASSES[:, 0])
    assert source.num_classes == 3
    # The constant colour and, in this file, the constant y are no factors.
    assert list(source.factor_names) == ["shape", "scale", "orientation", "x"]
    assert list(source.factor_sizes) == [3, 2, 3, 2]
    assert source.factors is not None
    for k in range(4):  # classes are renumbered, but in the same order
        _, expected = np.unique(CLASSES[:, k], return_inverse=True)
        np.testing.assert_array_equal(source.factors[:, k], expected)


def test_dsprites_are_resized_like_any_picture(tmp_path: Path) -> None:
    write_dsprites(tmp_path / "d.npz")
    images, _ = everything(open_array_file(tmp_path / "d.npz", Form(32, 3)))
    assert images.shape == (36, 3, 32, 32)
    areas = render(CLASSES).sum((1, 2)) / 4
    np.testing.assert_allclose(images[:, 0].astype(float).sum((1, 2)) / 255, areas, rtol=0.05)


def write_shapes3d(path: Path, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 64, 64, 3), np.uint8)
    hues = [np.arange(n) % 10 / 10, np.arange(n) % 9 / 10, np.arange(n) % 8 / 10]
    labels = np.stack([*hues, 0.75 + np.arange(n) % 8 / 14, np.arange(n) % 4, -30 + np.arange(n) % 15 * 60 / 14], 1)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=(7, 64, 64, 3), compression="gzip")
        file["labels"] = labels
    return images, labels


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_shapes3d_layout(tmp_path: Path, limit: int) -> None:
    images, labels = write_shapes3d(tmp_path / "3dshapes.h5")
    source = open_array_file(tmp_path / "3dshapes.h5", Form(64, 3), in_memory_limit=limit)
    assert source.in_memory == (limit > 0)
    assert list(source.factor_names) == ["floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"]
    assert list(source.factor_sizes) == [10, 9, 8, 8, 4, 15]
    assert source.num_classes == 4
    for indices in (np.array([31, 2, 2, 17]), np.arange(5, 9), np.array([3])):
        pictures, classes = source.read(indices)
        np.testing.assert_array_equal(pictures, images[indices].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(classes, labels[indices, 4])
    assert source.factors is not None
    np.testing.assert_array_equal(source.factors[:, 5], np.arange(40) % 15)


def test_h5_is_read_by_workers(tmp_path: Path) -> None:
    write_shapes3d(tmp_path / "s.h5")
    source = open_array_file(tmp_path / "s.h5", Form(16, 1), in_memory_limit=STREAMED)
    source.read(np.array([0]))  # opens the file in this process first
    with Batches(source, batch_size=8, seed=0, workers=2) as parallel:
        alone = Batches(source, batch_size=8, seed=0, resident="stream", workers=0)
        for position in range(0, 80, 8):
            assert torch.equal(parallel.at(position)[0], alone.at(position)[0])
    assert pickle.loads(pickle.dumps(source)).fingerprint() == source.fingerprint()


def test_h5_fingerprint_tells_files_and_transforms_apart(tmp_path: Path) -> None:
    write_shapes3d(tmp_path / "a.h5")
    write_shapes3d(tmp_path / "b.h5", 41)
    prints = {
        open_array_file(tmp_path / name, Form(resolution, 3), in_memory_limit=STREAMED).fingerprint()
        for name in ("a.h5", "b.h5")
        for resolution in (16, 64)
    }
    assert len(prints) == 4


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3)])
def test_plain_images_and_labels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, *shape), np.uint8)
    np.savez(tmp_path / "p.npz", images=images, labels=np.array([5, 9, 5, 7, 7, 9], np.int32))
    source = open_array_file(tmp_path / "p.npz", Form(8, images.shape[3] if images.ndim == 4 else 1))
    pictures, labels = everything(source)
    np.testing.assert_array_equal(pictures, images.reshape(6, 8, 8, -1).transpose(0, 3, 1, 2))
    assert labels.tolist() == [0, 2, 0, 1, 1, 2]
    assert source.class_names == ["5", "7", "9"]
    assert source.factors is None


def test_images_without_labels_and_bool_masks(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).random((5, 8, 8)) < 0.5
    np.savez(tmp_path / "m.npz", images=masks)
    source = open_array_file(tmp_path / "m.npz", Form(8, 1))
    assert source.num_classes == 0
    np.testing.assert_array_equal(everything(source)[0][:, 0], masks * 255)


def test_images_that_are_not_square_are_cut(tmp_path: Path) -> None:
    images = np.zeros((3, 8, 20), np.uint8)
    images[:, :, 6:14] = 77
    np.savez(tmp_path / "w.npz", images=images)
    assert (everything(open_array_file(tmp_path / "w.npz", Form(8, 1)))[0] == 77).all()


def test_pickled_images_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"evil\.npz: cannot be read"):
        open_array_file(tmp_path / "evil.npz", Form(8, 1))


def test_bad_files(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8), np.uint8)
    np.savez(tmp_path / "keys.npz", pictures=images)
    np.savez(tmp_path / "float.npz", images=images / 255)
    np.savez(tmp_path / "shape.npz", images=images[..., None, None])
    np.savez(tmp_path / "labels.npz", images=images, labels=np.arange(3))
    np.savez(tmp_path / "none.npz", images=images[:0])
    (tmp_path / "junk.npz").write_bytes(b"junk")
    (tmp_path / "junk.h5").write_bytes(b"junk")
    (tmp_path / "x.mat").write_bytes(b"junk")
    with h5py.File(tmp_path / "keys.h5", "w") as file:
        file["pictures"] = images
    for name, message in {
        "keys.npz": "has no array 'images' or 'imgs'; it holds pictures",
        "float.npz": "must be uint8",
        "shape.npz": r"not \(4, 8, 8, 1, 1\)",
        "labels.npz": "4 images but annotations",
        "none.npz": "no images",
        "junk.npz": "cannot be read",
        "junk.h5": "cannot be opened as an HDF5 file",
        "keys.h5": "no data set 'images' or 'imgs'; it holds pictures",
        "x.mat": r"reads \.npz, \.npy and \.h5 files",
        "missing.npz": "no such file",
    }.items():
        with pytest.raises(UserError, match=message):
            open_array_file(tmp_path / name, Form(8, 1))


def test_h5_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shapes3d(tmp_path / "s.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[h5\]'"):
        open_array_file(tmp_path / "s.h5", Form(64, 3))


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_npy_with_labels_beside_it(tmp_path: Path, limit: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    np.save(tmp_path / "big.npy", images)
    np.save(tmp_path / "big.labels.npy", np.arange(20) % 3 * 10)
    source = open_array_file(tmp_path / "big.npy", Form(8, 3), in_memory_limit=limit)
    assert source.in_memory == (limit > 0)
    assert list(source.class_names) == ["0", "10", "20"]
    for indices in (np.array([13, 2, 2, 19]), np.arange(5, 9), np.array([3]), np.arange(0)):
        pictures, labels = source.read(indices)
        np.testing.assert_array_equal(pictures, images[indices].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(labels, indices % 3)
    before = source.fingerprint()
    assert pickle.loads(pickle.dumps(source)).fingerprint() == before
    images[0] ^= 1
    np.save(tmp_path / "big.npy", images)
    assert open_array_file(tmp_path / "big.npy", Form(8, 3), in_memory_limit=limit).fingerprint() != before


def test_grey_npy_without_labels_becomes_what_is_asked_for(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)
    np.save(tmp_path / "g.npy", images)
    source = open_array_file(tmp_path / "g.npy", Form(8, 3), in_memory_limit=STREAMED)
    assert (source.num_classes, source.factors) == (0, None)
    np.testing.assert_array_equal(everything(source)[0], np.repeat(images[:, None], 3, axis=1))


def test_bad_npy_files(tmp_path: Path) -> None:
    images = np.zeros((6, 8, 8), np.uint8)
    np.save(tmp_path / "float.npy", images / 1.0)
    np.save(tmp_path / "flat.npy", images.reshape(6, -1))
    np.save(tmp_path / "none.npy", images[:0])
    np.save(tmp_path / "order.npy", np.asfortranarray(images))
    np.save(tmp_path / "object.npy", np.array([{}, {}], dtype=object))
    np.save(tmp_path / "few.npy", images)
    np.save(tmp_path / "few.labels.npy", np.arange(5))
    np.save(tmp_path / "cut.npy", images)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "few.npy").read_bytes()[:-1])
    (tmp_path / "junk.npy").write_bytes(b"junk")
    for name, message in {
        "float.npy": "one uint8 array",
        "flat.npy": "one uint8 array",
        "none.npy": "no images",
        "order.npy": "Fortran order",
        "object.npy": r"object\.npy: cannot be read",
        "few.npy": r"few\.labels\.npy: 6 images but annotations",
        "cut.npy": r"cut\.npy: cannot be read",
        "junk.npy": r"junk\.npy: cannot be read",
    }.items():
        with pytest.raises(UserError, match=message):
            open_array_file(tmp_path / name, Form(8, 1), in_memory_limit=STREAMED)


@pytest.mark.parametrize("layout", ["plain", "user block", "chunks", "gzip", "dsprites"])
def test_h5_of_any_layout_gives_its_pixels(tmp_path: Path, layout: str) -> None:
    images = np.random.default_rng(0).integers(0, 2 if layout == "dsprites" else 256, (30, 8, 8), np.uint8)
    options = {"chunks": {"chunks": (4, 8, 8)}, "gzip": {"compression": "gzip"}}.get(layout, {})
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512 if layout == "user block" else 0) as file:
        file.create_dataset("imgs" if layout == "dsprites" else "images", data=images, **options)
    source = open_array_file(tmp_path / "a.h5", Form(8, 1), in_memory_limit=STREAMED)
    assert isinstance(source, H5Source)
    assert (source.contents.rows is not None) == (layout in ("plain", "user block", "dsprites"))
    expected = images * np.uint8(255 if layout == "dsprites" else 1)
    for indices in (np.array([29, 4, 4, 17]), np.arange(3, 20), np.arange(0)):
        np.testing.assert_array_equal(source.read(indices)[0][:, 0], expected[indices])
