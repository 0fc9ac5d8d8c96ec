from __future__ import annotations

import itertools
import os
import pickle
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from orthogan.data import Batches, ImageSource
from orthogan.data.formats.hdf5 import H5Source
from orthogan.data.sprites import render
from orthogan.errors import UserError
from tests.fixtures.sets import opened

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
    source = opened("array", tmp_path / name, 64, 1)
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
    images, _ = everything(opened("array", tmp_path / "d.npz", 32, 3))
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
    source = opened("array", tmp_path / "3dshapes.h5", 64, 3, in_memory_limit=limit)
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
    source = opened("array", tmp_path / "s.h5", 16, 1, in_memory_limit=STREAMED)
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
        opened("array", tmp_path / name, resolution, 3, in_memory_limit=STREAMED).fingerprint()
        for name in ("a.h5", "b.h5")
        for resolution in (16, 64)
    }
    assert len(prints) == 4


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (8, 8, 3)])
def test_plain_images_and_labels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, *shape), np.uint8)
    np.savez(tmp_path / "p.npz", images=images, labels=np.array([5, 9, 5, 7, 7, 9], np.int32))
    source = opened("array", tmp_path / "p.npz", 8, images.shape[3] if images.ndim == 4 else 1)
    pictures, labels = everything(source)
    np.testing.assert_array_equal(pictures, images.reshape(6, 8, 8, -1).transpose(0, 3, 1, 2))
    assert labels.tolist() == [0, 2, 0, 1, 1, 2]
    assert source.class_names == ["5", "7", "9"]
    assert source.factors is None


def test_images_without_labels_and_bool_masks(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).random((5, 8, 8)) < 0.5
    np.savez(tmp_path / "m.npz", images=masks)
    source = opened("array", tmp_path / "m.npz", 8, 1)
    assert source.num_classes == 0
    np.testing.assert_array_equal(everything(source)[0][:, 0], masks * 255)


def test_images_that_are_not_square_are_cut(tmp_path: Path) -> None:
    images = np.zeros((3, 8, 20), np.uint8)
    images[:, :, 6:14] = 77
    np.savez(tmp_path / "w.npz", images=images)
    assert (everything(opened("array", tmp_path / "w.npz", 8, 1))[0] == 77).all()


def test_pickled_images_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match=r"evil\.npz: 'images': contains pickled objects"):
        opened("array", tmp_path / "evil.npz", 8, 1)


def test_bad_files(tmp_path: Path) -> None:
    images = np.zeros((4, 8, 8), np.uint8)
    np.savez(tmp_path / "keys.npz", pictures=images)
    np.savez(tmp_path / "float.npz", images=images + 2.0 * (np.arange(8) == 3))
    np.savez(tmp_path / "shape.npz", images=images[..., None, None])
    np.savez(tmp_path / "none.npz", images=images[:0])
    (tmp_path / "junk.npz").write_bytes(b"junk")
    (tmp_path / "junk.h5").write_bytes(b"junk")
    (tmp_path / "x.mat").write_bytes(b"junk")
    with h5py.File(tmp_path / "keys.h5", "w") as file:
        file["pictures"] = images
    for name, message in {
        "keys.npz": "has no array 'images' or 'imgs'; it holds pictures",
        "float.npz": r"float\.npz: images have values from 0 to 2, outside of 0 to 1; set data\.options\.range",
        "shape.npz": r"not \(4, 8, 8, 1, 1\)",
        "none.npz": "no images",
        "junk.npz": "not an .npz file",
        "junk.h5": "is not an HDF5 file",
        "keys.h5": "no data set 'images' or 'imgs'; it holds pictures",
        "x.mat": r"reads \.npz, \.npy and \.h5 files",
        "missing.npz": "no such file",
    }.items():
        with pytest.raises(UserError, match=message):
            opened("array", tmp_path / name, 8, 1)


def test_h5_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shapes3d(tmp_path / "s.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[h5\]'"):
        opened("array", tmp_path / "s.h5", 64, 3)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_npy_with_labels_beside_it(tmp_path: Path, limit: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    np.save(tmp_path / "big.npy", images)
    np.save(tmp_path / "big.labels.npy", np.arange(20) % 3 * 10)
    source = opened("array", tmp_path / "big.npy", 8, 3, in_memory_limit=limit)
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
    assert opened("array", tmp_path / "big.npy", 8, 3, in_memory_limit=limit).fingerprint() != before


def test_grey_npy_without_labels_becomes_what_is_asked_for(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)
    np.save(tmp_path / "g.npy", images)
    source = opened("array", tmp_path / "g.npy", 8, 3, in_memory_limit=STREAMED)
    assert (source.num_classes, source.factors) == (0, None)
    np.testing.assert_array_equal(everything(source)[0], np.repeat(images[:, None], 3, axis=1))


def test_bad_npy_files(tmp_path: Path) -> None:
    images = np.zeros((6, 8, 8), np.uint8)
    np.save(tmp_path / "float.npy", images - 0.5)
    np.save(tmp_path / "flat.npy", images.reshape(6, -1))
    np.save(tmp_path / "none.npy", images[:0])
    np.save(tmp_path / "order.npy", np.asfortranarray(images))
    np.save(tmp_path / "object.npy", np.array([{}, {}], dtype=object))
    np.save(tmp_path / "cut.npy", images)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-1])
    (tmp_path / "junk.npy").write_bytes(b"junk")
    for name, message in {
        "float.npy": r"float\.npy: images have values from -0\.5 to -0\.5, outside of 0 to 1; set data\.options\.range",
        "flat.npy": r"must be \(N, H, W\)",
        "none.npy": "no images",
        "order.npy": "Fortran order",
        "object.npy": r"object\.npy: contains pickled objects",
        "cut.npy": r"cut\.npy: .*ends within the images",
        "junk.npy": r"junk\.npy: is damaged, or is not a NumPy array",
    }.items():
        with pytest.raises(UserError, match=message):
            opened("array", tmp_path / name, 8, 1, in_memory_limit=STREAMED)


@pytest.mark.parametrize("layout", ["plain", "user block", "chunks", "gzip", "dsprites"])
def test_h5_of_any_layout_gives_its_pixels(tmp_path: Path, layout: str) -> None:
    images = np.random.default_rng(0).integers(0, 2 if layout == "dsprites" else 256, (30, 8, 8), np.uint8)
    options = {"chunks": {"chunks": (4, 8, 8)}, "gzip": {"compression": "gzip"}}.get(layout, {})
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512 if layout == "user block" else 0) as file:
        file.create_dataset("imgs" if layout == "dsprites" else "images", data=images, **options)
    source = opened("array", tmp_path / "a.h5", 8, 1, in_memory_limit=STREAMED)
    assert isinstance(source, H5Source)
    assert (source.array.rows is not None) == (layout in ("plain", "user block", "dsprites"))
    expected = images * np.uint8(255 if layout == "dsprites" else 1)
    for indices in (np.array([29, 4, 4, 17]), np.arange(3, 20), np.arange(0)):
        np.testing.assert_array_equal(source.read(indices)[0][:, 0], expected[indices])


FORMATS = ["npz", "packed.npz", "npy", "h5", "gzip.h5"]


def write(path: Path, images: np.ndarray, labels: np.ndarray | None = None) -> Path:
    """Images and annotations in the format of the name's ending."""
    arrays = {"images": images} | ({} if labels is None else {"labels": labels})
    if path.suffix == ".npz":
        (np.savez_compressed if path.name.endswith("packed.npz") else np.savez)(path, allow_pickle=False, **arrays)
    elif path.suffix == ".npy":
        np.save(path, images)
        if labels is not None:
            np.save(path.with_suffix(".labels.npy"), labels)
    else:
        with h5py.File(path, "w") as file:
            file.create_dataset("images", data=images, compression="gzip" if path.name.endswith("gzip.h5") else None)
            if labels is not None:
                file["labels"] = labels.astype(object) if labels.dtype.kind == "U" else labels
    return path


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [np.uint8, np.bool_])
def test_zeros_and_ones_are_black_and_white_in_every_format(
    tmp_path: Path, dtype: type, form: str, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    ones = np.random.default_rng(0).integers(0, 2, (90, 8, 8)).astype(dtype)
    source = opened("array", write(tmp_path / f"a.{form}", ones), 8, 1, in_memory_limit=limit)
    np.testing.assert_array_equal(everything(source)[0][:, 0], ones.astype(np.uint8) * 255)
    assert ("every pixel is 0 or 1" in caplog.text) == (dtype is np.uint8)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
@pytest.mark.parametrize("form", FORMATS)
def test_one_other_pixel_anywhere_makes_them_grey(
    tmp_path: Path, form: str, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    images = np.random.default_rng(0).integers(0, 2, (90, 8, 8), np.uint8)
    images[-1, -1, -1] = 2
    source = opened("array", write(tmp_path / f"a.{form}", images), 8, 1, in_memory_limit=limit)
    np.testing.assert_array_equal(everything(source)[0][:, 0], images)
    assert "every pixel" not in caplog.text


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "images",
    [
        np.full((4, 8, 8), 1.001, np.float32),
        np.full((4, 8, 8), np.nan),
        np.full((4, 8, 8), np.inf, np.float16),
        np.zeros((4, 8, 8), np.int64),
        np.zeros((4, 8, 8), np.int8),
        np.zeros((4, 8, 8), np.complex64),
        np.zeros((4, 8, 8, 17), np.uint8),
        np.zeros((4, 8, 8, 3, 1), np.uint8),
        np.zeros((4, 0, 0, 3), np.uint8),
        np.zeros((0, 8, 8), np.uint8),
        np.zeros((4, 64), np.uint8),
        np.zeros((), np.uint8),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_other_arrays_are_refused_in_every_format(tmp_path: Path, form: str, images: np.ndarray) -> None:
    if form == "gzip.h5" and not (images.size and images.shape):
        pytest.skip("HDF5 compresses neither an empty array nor a number")
    path = write(tmp_path / f"a.{form}", images)
    with pytest.raises(UserError, match=r"images (must|have|contain)|no images|is not an array|must be"):
        opened("array", path, 8, 1)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("dtype", "given"),
    [("<u2", None), (">u2", None), ("<u2", [0, 4095]), ("<f2", None), (">f4", None), ("<f8", None), ("<f4", [-1, 1])],
)
def test_16_bits_and_floats_are_rounded_to_the_nearest_level_in_every_format(
    tmp_path: Path, dtype: str, given: list[float] | None, form: str, limit: int
) -> None:
    rng = np.random.default_rng(0)
    black, white = given or ([0, 65535] if "u" in dtype else [0, 1])
    values = black + rng.random((9, 8, 8, 3)) * (white - black)
    values[0, 0, 0], values[8, 7, 7] = black, white
    values = (values.round() if "u" in dtype else values).astype(dtype)
    path = write(tmp_path / f"a.{form}", values, labels=np.arange(9) % 2)
    source = opened("array", path, 8, 3, in_memory_limit=limit, range=given)
    found, labels = source.read(np.array([8, 0, 3, 3]))
    assert labels.tolist() == [0, 0, 1, 1]
    assert found.dtype == np.uint8
    assert (found[0, :, 7, 7].tolist(), found[1, :, 0, 0].tolist()) == ([255] * 3, [0] * 3)
    # The level of each pixel is the nearest of the 256 levels, searched among all of them.
    levels = black + np.arange(256) / 255 * (white - black)
    wanted = values[[8, 0, 3, 3]].astype(np.float64).transpose(0, 3, 1, 2)
    apart = np.abs(wanted[..., None] - levels)
    chosen = np.take_along_axis(apart, found[..., None].astype(np.int64), -1)[..., 0]
    np.testing.assert_allclose(chosen, apart.min(-1), rtol=0, atol=1e-12 * white)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
@pytest.mark.parametrize("form", FORMATS)
def test_values_out_of_range_are_refused_at_the_start(tmp_path: Path, form: str, limit: int) -> None:
    values = np.random.default_rng(0).random((90, 8, 8))
    values[50, 3, 3], values[70, 0, 0] = -0.25, 1.5
    path = write(tmp_path / f"a.{form}", values)
    for given, message in (
        (None, r"from -0\.25 to 1\.5, outside of 0 to 1; set data\.options\.range"),
        ([-1, 1], r"from -0\.25 to 1\.5, outside of -1 to 1; set data\.options\.range"),
        ([1, 0], r"data\.options\.range: .*black < white"),
        ([0, float("inf")], r"data\.options\.range.*finite"),
        ([0, 1, 2], r"data\.options\.range: .*\[black, white\]"),
    ):
        with pytest.raises(UserError, match=message):
            opened("array", path, 8, 1, in_memory_limit=limit, range=given)
    opened("array", path, 8, 1, in_memory_limit=limit, range=[-1, 2])
    values[70, 0, 0] = np.nan
    with pytest.raises(UserError, match=r"contain NaN; the other values are from -0\.25 to 0\.99"):
        opened("array", write(path, values), 8, 1, in_memory_limit=limit)
    with pytest.raises(UserError, match=r"images contain NaN; replace the NaN"):
        opened("array", write(path, np.full_like(values, np.nan)), 8, 1, in_memory_limit=limit)
    with pytest.raises(UserError, match=r"data\.options\.range: is for uint16 and float images"):
        opened("array", write(path, values > 0.5), 8, 1, in_memory_limit=limit, range=[0, 1])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("high", "warned"), [(1, True), (255, True), (4095, True), (4096, False)])
def test_uint16_that_only_uses_12_bits_gets_a_warning(
    tmp_path: Path, form: str, high: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    values = np.full((4, 8, 8), high, np.uint16)
    path = write(tmp_path / f"a.{form}", values)
    opened("array", path, 8, 1)
    assert ("almost black" in caplog.text) == warned
    caplog.clear()
    opened("array", path, 8, 1, range=[0, high])
    assert "almost black" not in caplog.text


def test_the_range_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    path = write(tmp_path / "a.npy", np.random.default_rng(0).random((4, 8, 8)))
    prints = {opened("array", path, 8, 1, in_memory_limit=STREAMED, range=r).fingerprint() for r in (None, [-1, 1])}
    assert len(prints) == 2


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (np.array([7, 3, 7, 3]), ["3", "7"]),
        (np.array([2, 10, 1, 2]), ["1", "2", "10"]),
        (np.array([1_234_567, 1_234_568, 1_234_567, 1_234_568]), ["1234567", "1234568"]),
        (np.array([0.5, 1.0, 0.5, 2.0]), ["0.5", "1", "2"]),
        (np.array([0.1234567, 0.1234568, 0.1234567, 0.1234567]), ["0.1234567", "0.1234568"]),
        (np.array([True, False, True, True]), ["0", "1"]),
        (np.array([2**63 + 1, 5, 5, 5], np.uint64), ["5", "9223372036854775809"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_classes_of_every_format(tmp_path: Path, form: str, labels: np.ndarray, names: list[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    source = opened("array", write(tmp_path / f"a.{form}", images, labels=labels), 8, 1)
    assert source.class_names == names
    assert everything(source)[1].tolist() == np.unique(labels, return_inverse=True)[1].tolist()


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "labels",
    [
        np.arange(3),
        np.array(["cat", "dog", "cat", "dog"]),
        np.array([0.0, np.nan, 1.0, 1.0]),
        np.array([[0.0, np.inf]] * 4),
        np.array([1j, 2, 3, 4]),
        np.zeros((4, 2, 2)),
        np.zeros((4, 1000)),
        np.zeros((4, 0)),
        np.zeros(()),
    ],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_labels_that_cannot_be_used_do_not_cost_the_images(
    tmp_path: Path, form: str, labels: np.ndarray, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    source = opened("array", write(tmp_path / f"a.{form}", images, labels=labels), 8, 1, in_memory_limit=limit)
    np.testing.assert_array_equal(everything(source)[0][:, 0], images)
    assert (source.num_classes, source.factors) == (0, None)
    assert source.why_unlabeled
    assert source.why_unlabeled in caplog.text


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
@pytest.mark.parametrize("form", FORMATS)
def test_fingerprints_of_files_follow_every_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, limit: int
) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8), np.uint8)

    def fingerprint(folder: str, values: np.ndarray) -> str:
        (tmp_path / folder).mkdir(exist_ok=True)
        path = write(tmp_path / folder / f"a.{form}", values)
        os.utime(path, (1e9, 1e9))
        return opened("array", path, 8, 1, in_memory_limit=limit).fingerprint()

    before = fingerprint("a", images)
    # HDF5 writes the time into its files, and so does the zip of an .npz: only what is in memory is compared by pixel.
    if limit or form == "npy":
        assert fingerprint("b", images) == before
    other = images.copy()
    other[np.setdiff1d(np.arange(200), np.linspace(0, 199, 64).astype(int))] ^= 1
    assert fingerprint("a", other) != before
    other = images.copy()
    other[101, 3, 3] ^= 1
    assert fingerprint("a", other) != before


def hostile_h5(folder: Path) -> dict[str, str]:
    """Names of files and what is said of them."""
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    (folder / "secret").write_bytes(bytes(range(256)) * 2)
    (folder / "elsewhere").mkdir()
    for place in ("part.h5", "elsewhere/part.h5"):
        with h5py.File(folder / place, "w") as file:
            file["x"] = images
    with h5py.File(folder / "outside.h5", "w") as file:
        file.create_dataset("images", (6, 8, 8), np.uint8, external=[(str(folder / "secret"), 0, 384)])
    with h5py.File(folder / "part-outside.h5", "w") as file:
        file.create_dataset("x", (6, 8, 8), np.uint8, external=[(str(folder / "secret"), 0, 384)])
    with h5py.File(folder / "group.h5", "w") as file:
        file.create_group("images")
    with h5py.File(folder / "scalar.h5", "w") as file:
        file["images"] = 7
    with h5py.File(folder / "empty.h5", "w") as file:
        file["images"] = h5py.Empty(np.uint8)
    with h5py.File(folder / "type.h5", "w") as file:
        file["images"] = np.dtype(np.uint8)
    for name, link in {
        "soft": h5py.SoftLink("/nothing"),
        "loop": h5py.SoftLink("/images"),
        "external": h5py.ExternalLink("elsewhere/part.h5", "/x"),
        "missing": h5py.ExternalLink("nothing.h5", "/x"),
        "way": h5py.SoftLink("/door/x"),
    }.items():
        with h5py.File(folder / f"{name}-link.h5", "w") as file:
            file["images"] = link
            file["door"] = h5py.ExternalLink("part.h5", "/")
    with h5py.File(folder / "declared.h5", "w") as file:
        file.create_dataset("images", (10**9, 8, 8), np.uint8, chunks=(1, 8, 8))
    with h5py.File(folder / "never-written.h5", "w") as file:
        file.create_dataset("images", (6, 8, 8), np.uint8)
    with h5py.File(folder / "half-written.h5", "w") as file:
        file.create_dataset("images", (6, 8, 8), np.uint8, chunks=(1, 8, 8))[:4] = images[:4]
    with h5py.File(folder / "chunk.h5", "w") as file:
        file.create_dataset("images", (1 << 18, 64, 64), np.uint8, chunks=(1 << 18, 64, 64), compression="gzip")
    for name, source in {
        "missing-part": "nothing.h5",
        "part-elsewhere": "elsewhere/part.h5",
        "part-with-outside-values": "part-outside.h5",
        "parts-absolute": str(folder / "elsewhere" / "part.h5"),
    }.items():
        layout = h5py.VirtualLayout((6, 8, 8), np.uint8)
        layout[:] = h5py.VirtualSource(source, "x", (6, 8, 8))
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_virtual_dataset("images", layout)
    layout = h5py.VirtualLayout((12, 8, 8), np.uint8)
    layout[:6] = h5py.VirtualSource("part.h5", "x", (6, 8, 8))
    with h5py.File(folder / "half-mapped.h5", "w") as file:
        file.create_virtual_dataset("images", layout)
    return {
        "outside": "takes its values from other files",
        "group": "is not an array",
        "scalar": "is not an array",
        "empty": "is not an array",
        "type": "is not an array",
        "soft-link": "has no data set|not an HDF5 file",
        "loop-link": "has no data set|not an HDF5 file|link to another file",
        "external-link": "is a link to another file",
        "missing-link": "has no data set|is a link to another file",
        "way-link": "is a link to another file",
        "declared": "never written",
        "never-written": "never written",
        "half-written": "never written",
        "chunk": "is stored in chunks",
        "missing-part": r"nothing\.h5: no such file",
        "part-elsewhere": "not in the same folder",
        "part-with-outside-values": "takes its values from other files",
        "parts-absolute": "not in the same folder",
        "half-mapped": "parts hold only 384 of 768 values",
    }


def test_h5_files_that_point_elsewhere_or_are_not_whole_are_refused(tmp_path: Path) -> None:
    for name, message in hostile_h5(tmp_path).items():
        with pytest.raises(UserError, match=message):
            opened("array", tmp_path / f"{name}.h5", 8, 1)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_h5_links_and_parts_inside_the_folder_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    for k in range(2):
        with h5py.File(tmp_path / f"part{k}.h5", "w") as file:
            file["x"] = images[3 * k : 3 * k + 3]
    layout = h5py.VirtualLayout((6, 8, 8), np.uint8)
    for k in range(2):
        layout[3 * k : 3 * k + 3] = h5py.VirtualSource(f"part{k}.h5", "x", (3, 8, 8))
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_virtual_dataset("images", layout)
    with h5py.File(tmp_path / "soft.h5", "w") as file:
        file["data/x"], file["images"] = images, h5py.SoftLink("/data/x")
    for name in ("whole", "soft"):
        source = opened("array", tmp_path / f"{name}.h5", 8, 1, in_memory_limit=limit)
        np.testing.assert_array_equal(everything(source)[0][:, 0], images)
    before = opened("array", tmp_path / "whole.h5", 8, 1, in_memory_limit=limit).fingerprint()
    with h5py.File(tmp_path / "part1.h5", "r+") as file:
        part = file["x"]
        assert isinstance(part, h5py.Dataset)
        part[2, 0, 0] ^= 1
    assert opened("array", tmp_path / "whole.h5", 8, 1, in_memory_limit=limit).fingerprint() != before


@pytest.mark.parametrize("ending", [".npz", ".npy", ".h5"])
def test_array_files_that_are_no_files(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / f"pipe{ending}")
    (tmp_path / f"zero{ending}").symlink_to("/dev/zero")
    (tmp_path / f"folder{ending}").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(UserError, match=f"{name}{ending}: this is not a regular file"):
            opened("array", tmp_path / f"{name}{ending}", 8, 1)
    for path in ("~no-such-user/a" + ending, "a" * 300 + ending):
        with pytest.raises(UserError):
            opened("array", path, 8, 1)


def test_a_file_that_declares_more_images_than_anybody_has(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (10**11, 1, 1)})
        file.truncate(10**11 + 200)  # takes no space on the disk
    with pytest.raises(UserError, match="claims to hold 100,000,000,000 images"):
        opened("array", tmp_path / "a.npy", 8, 1)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("labels", "advice"), [(None, "save class numbers of shape"), (np.eye(4), "save one class number per image")]
)
def test_sets_without_classes_say_what_would_make_some(
    tmp_path: Path, form: str, labels: np.ndarray | None, advice: str
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    source = opened("array", write(tmp_path / f"a.{form}", images, labels), 8, 1)
    assert source.num_classes == 0
    assert advice in source.why_unlabeled
