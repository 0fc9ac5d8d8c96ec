"""The published grids are imitated in their exact formats, small; nothing is downloaded."""

from __future__ import annotations

import gzip
import io
import itertools
import logging
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from orthogan.data import ArraySource, Batches, ImageSource
from orthogan.data.factors import FactorGrid
from orthogan.data.formats.arrays import StoredSource
from orthogan.data.formats.matrices import read_norb
from orthogan.data.sources.sprites import SpriteGrid
from orthogan.data.sprites import FACTOR_SIZES, render
from orthogan.disentanglement import beta_vae, factor_vae
from orthogan.errors import UserError
from tests.fixtures.sets import opened

RNG = np.random.default_rng(0)
STREAMED = 0
SPRITES = np.array(list(itertools.product((0, 1, 2), (0, 5), (0, 7, 39), (3, 20), (4,))))  # (36, 5)
MPI3D = (4, 4, 2, 3, 3, 40, 40)
CARS = [f"car_{k:03d}_mesh" for k in range(1, 200) if k % 12]  # 183 names with gaps, as published


def everything(source: ImageSource) -> tuple[np.ndarray, np.ndarray]:
    return source.read(np.arange(len(source)))


def known(source: ImageSource) -> np.ndarray:
    assert source.factors is not None
    assert source.factors.shape == (len(source), len(source.factor_names))
    assert len(source.factor_names) == len(source.factor_sizes)
    return source.factors


# dSprites


def write_dsprites(path: Path, changed: dict[str, Any] | None = None, *, compressed: bool = True) -> Path:
    rows = np.concatenate([np.zeros((len(SPRITES), 1), np.int64), SPRITES], axis=1)
    values = np.column_stack([np.ones(36), rows[:, 1] + 1.0, 0.5 + rows[:, 2] / 10, rows[:, 3] * 2 * np.pi / 39])
    values = np.column_stack([values, rows[:, 4:] / 31])
    metadata = np.array({"title": "dSprites dataset"}, dtype=object)  # a pickle, as in the published file
    arrays: dict[str, Any] = {
        "metadata": metadata,
        "imgs": render(SPRITES),
        "latents_classes": rows,
        "latents_values": values,
    }
    (np.savez_compressed if compressed else np.savez)(path, **(arrays | (changed or {})))
    return path


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_dsprites_keep_their_classes_and_lose_the_constant_colour(
    tmp_path: Path, compressed: bool, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_dsprites(tmp_path / "d.npz", compressed=compressed)
    with caplog.at_level(logging.WARNING):
        source = opened("dsprites", path, 64, 1, in_memory_limit=limit)
    assert isinstance(source, StoredSource) == (not compressed and limit == STREAMED)
    assert ("compressed" in caplog.text) == (compressed and limit == STREAMED)
    pictures, labels = everything(source)
    np.testing.assert_array_equal(pictures[:, 0], render(SPRITES) * 255)
    assert list(source.factor_names) == ["shape", "scale", "orientation", "x", "y"]
    # A file with some of the rows does not renumber the classes: the sizes are those of dSprites.
    assert tuple(source.factor_sizes) == FACTOR_SIZES
    np.testing.assert_array_equal(known(source), SPRITES)
    np.testing.assert_array_equal(labels, SPRITES[:, 0])
    assert list(source.class_names) == ["square", "ellipse", "heart"]
    assert source.name == "dsprites"


def test_dsprites_that_are_not_as_published_are_refused(tmp_path: Path) -> None:
    rows = np.concatenate([np.zeros((36, 1), np.int64), SPRITES], axis=1)
    for changed, message in (
        ({"imgs": render(SPRITES) * np.uint8(255)}, "pixels up to 255, expected 0 and 1"),
        ({"imgs": render(SPRITES).astype(np.float32)}, r"'imgs' is float32 \(36, 64, 64\), expected uint8"),
        ({"imgs": np.asfortranarray(render(SPRITES))}, "Fortran order"),
        ({"latents_classes": rows[:, 1:]}, r"int64 \(36, 5\), expected integers \(36, 6\)"),
        ({"latents_classes": rows.astype(float)}, r"float64 \(36, 6\), expected integers"),
        ({"latents_classes": rows[:, ::-1]}, r"colour \(column 0\) runs from 4 to 4, expected 0 to 0"),
        ({"latents_classes": rows - [0, 1, 0, 0, 0, 0]}, r"shape \(column 1\) runs from -1 to 1, expected 0 to 2"),
        ({"latents_classes": np.array([{}])}, "'latents_classes': contains pickled objects"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            opened("dsprites", write_dsprites(tmp_path / "d.npz", changed), 64, 1)
        assert str(caught.value).startswith(str(tmp_path / "d.npz"))
    np.savez(tmp_path / "e.npz", imgs=render(SPRITES))
    with pytest.raises(UserError, match="no array 'latents_classes'"):
        opened("dsprites", tmp_path / "e.npz", 64, 1)
    np.savez(tmp_path / "e.npz", images=render(SPRITES))
    with pytest.raises(UserError, match="has no array 'imgs'; it holds images"):
        opened("dsprites", tmp_path / "e.npz", 64, 1)
    (tmp_path / "e.npz").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"is not an \.npz file"):
        opened("dsprites", tmp_path / "e.npz", 64, 1)
    with pytest.raises(UserError, match=r"no such file; data\.path must name dsprites_ndarray"):
        opened("dsprites", tmp_path / "f.npz", 64, 1)


def test_damage_within_a_file_is_named(tmp_path: Path) -> None:
    path = write_dsprites(tmp_path / "d.npz")
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("imgs.npy")
    content = bytearray(path.read_bytes())
    middle = info.header_offset + 60 + info.compress_size // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"d\.npz: 'imgs': is damaged"):
        opened("dsprites", path, 64, 1)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (460800, 2, 2, 3)})
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    with pytest.raises(UserError, match=r"m\.npz: 'images' is truncated"):
        opened("mpi3d", tmp_path / "m.npz", 2, 3, in_memory_limit=STREAMED)


# MPI3D


@pytest.fixture(scope="module")
def mpi3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 460,800 pictures, of 2 x 2 pixels that spell their number."""
    number = np.arange(460_800, dtype="<u4").view(np.uint8).reshape(-1, 4)
    images = np.zeros((460_800, 2, 2, 3), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 1], images[:, 1, 0, 2] = number[:, 0], number[:, 1], number[:, 2]
    path = tmp_path_factory.mktemp("mpi3d") / "mpi3d_real.npz"
    np.savez(path, images=images)
    return path


def spelled(pictures: np.ndarray) -> np.ndarray:
    digits = pictures[:, 0, 0, 0], pictures[:, 1, 0, 1], pictures[:, 2, 1, 0]
    return np.stack(digits, axis=1) @ np.array([1, 256, 65536])


def test_the_place_of_an_mpi3d_picture_is_its_factors_in_mixed_radix(mpi3d: Path) -> None:
    source = opened("mpi3d", mpi3d, 2, 3, in_memory_limit=STREAMED)
    assert isinstance(source, StoredSource)
    factors = known(source)
    assert tuple(source.factor_sizes) == MPI3D
    # The formula of the authors' README, written out.
    index = factors @ np.array([115200, 28800, 14400, 4800, 1600, 40, 1])
    np.testing.assert_array_equal(index, np.arange(460_800))
    wanted = RNG.integers(0, MPI3D, (50, 7))
    np.testing.assert_array_equal(spelled(FactorGrid(source).sample(wanted)), np.ravel_multi_index(wanted.T, MPI3D))
    pictures, labels = source.read(np.array([460_799, 3, 3]))
    assert spelled(pictures).tolist() == [460_799, 3, 3]
    assert labels.tolist() == [3, 0, 0]
    assert (source.name, source.num_classes, source.factor_names[5]) == ("mpi3d_real", 4, "horizontal_axis")


def test_mpi3d_on_disk_is_what_it_is_in_memory_and_in_workers(mpi3d: Path) -> None:
    mapped = opened("mpi3d", mpi3d, 2, 3, in_memory_limit=STREAMED)
    loaded = opened("mpi3d", mpi3d, 2, 3)
    assert isinstance(loaded, ArraySource)
    np.testing.assert_array_equal(everything(mapped)[0], everything(loaded)[0])
    np.testing.assert_array_equal(everything(mapped)[1], everything(loaded)[1])
    copy = pickle.loads(pickle.dumps(mapped))
    assert isinstance(mapped, StoredSource)
    assert isinstance(copy, StoredSource)
    assert mapped.array.rows is not None
    assert copy.array.rows is not None
    assert mapped.array.rows._file is not None
    assert copy.array.rows._file is None  # a worker opens its own
    assert copy.fingerprint() == mapped.fingerprint()
    assert opened("mpi3d", mpi3d, 1, 3, in_memory_limit=STREAMED).fingerprint() != mapped.fingerprint()
    with Batches(mapped, batch_size=8, seed=0, workers=1) as parallel:
        alone = Batches(mapped, batch_size=8, seed=0, resident="stream", workers=0)
        assert torch.equal(parallel.at(16)[0], alone.at(16)[0])


def test_an_mpi3d_of_another_count_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", images=np.zeros((460_799, 1, 1, 3), np.uint8))
    with pytest.raises(UserError, match=r"460,799 pictures, expected 1,036,800 = 6 x 6 x 2 .* or 460,800 = 4 x 4 x 2"):
        opened("mpi3d", tmp_path / "m.npz", 1, 3)


def test_the_final_mpi3d_has_six_colours_and_shapes(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "mpi3d_toy.npz", images=np.zeros((1_036_800, 1, 1, 3), np.uint8))
    source = opened("mpi3d", tmp_path / "mpi3d_toy.npz", 1, 3)
    assert tuple(source.factor_sizes) == (6, 6, 2, 3, 3, 40, 40)
    assert known(source)[172_800].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert source.num_classes == 6


# Shapes3D


def shapes3d_labels(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Classes and the published values, with the rounding that floats bring."""
    classes = np.stack([np.arange(n) * step % size for step, size in zip((1, 3, 7, 1, 1, 1), SHAPES, strict=True)], 1)
    hue = [np.where(np.arange(n) // 10 % 2, classes[:, k] * 0.1, classes[:, k] / 10) for k in range(3)]
    rest = np.linspace(0.75, 1.25, 8)[classes[:, 3]], classes[:, 4], np.linspace(-30, 30, 15)[classes[:, 5]]
    return classes, np.column_stack([*hue, *rest])


SHAPES = (10, 10, 10, 8, 4, 15)


def write_shapes3d(path: Path, labels: np.ndarray, *, key: str = "labels") -> np.ndarray:
    images = RNG.integers(0, 256, (len(labels), 64, 64, 3), np.uint8)
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=(7, 64, 64, 3))
        file[key] = labels
    return images


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_the_floats_of_shapes3d_become_classes(tmp_path: Path, limit: int) -> None:
    classes, values = shapes3d_labels()
    assert len(np.unique(values[:, 0])) > 10  # 3 * 0.1 is not 3 / 10: the trap is in the file
    images = write_shapes3d(tmp_path / "3dshapes.h5", values)
    source = opened("shapes3d", tmp_path / "3dshapes.h5", 64, 3, in_memory_limit=limit)
    assert source.in_memory == (limit > 0)
    np.testing.assert_array_equal(known(source), classes)
    assert source.factors is not None
    assert source.factors.dtype == np.int64
    assert list(source.factor_names) == ["floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"]
    assert (tuple(source.factor_sizes), source.num_classes, source.name) == (SHAPES, 4, "shapes3d")
    indices = np.array([31, 2, 2, 17])
    pictures, labels = source.read(indices)
    np.testing.assert_array_equal(pictures, images[indices].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(labels, classes[indices, 4])
    grid = FactorGrid(source)
    np.testing.assert_array_equal(grid.sample(classes[indices]), pictures)


def test_shapes3d_that_are_not_as_published_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "3dshapes.h5"
    _, values = shapes3d_labels()
    broken = values.copy()
    broken[3, 3] = np.nan
    for labels, message in (
        (values[:, :5], r"'labels' is float64 \(60, 5\), expected finite float64 \(60, 6\)"),
        (broken, "expected finite"),
        (values[:9], r"column 0 of 'labels' \(floor_hue\) has 9 different values, expected 10"),
        (values[:, [0, 1, 2, 4, 3, 5]], r"column 3 of 'labels' \(scale\) has 4 different values, expected 8"),
    ):
        write_shapes3d(path, labels)
        with pytest.raises(UserError, match=message) as caught:
            opened("shapes3d", path, 64, 3)
        assert "3dshapes.h5" in str(caught.value)
    write_shapes3d(path, values, key="latents")
    with pytest.raises(UserError, match="'labels' is missing"):
        opened("shapes3d", path, 64, 3)
    with pytest.raises(UserError, match=r"must name 3dshapes\.h5"):
        opened("shapes3d", tmp_path, 64, 3)


# Cars3D


def car(number: int) -> np.ndarray:
    """``im`` of one car: every picture of one colour, which is (object, azimuth, elevation)."""
    images = np.empty((8, 8, 3, 24, 4), np.uint8)
    images[:, :, 0] = number
    images[:, :, 1] = np.arange(24)[:, None]
    images[:, :, 2] = np.arange(4)
    return images


@pytest.fixture(scope="module")
def cars(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The unpacked folder and the archive, in which the cars lie in no order and beside other .mat files."""
    root = tmp_path_factory.mktemp("cars3d")
    folder = root / "data" / "cars"
    folder.mkdir(parents=True)
    for k, name in enumerate(CARS):
        mask = np.zeros((8, 8, 24, 4), np.uint8)
        savemat(folder / f"{name}.mat", {"im": car(k), "mask": mask}, do_compression=True)
    (folder / "list.txt").write_text("\n".join(CARS))
    (folder / "._car_001_mesh.mat").write_bytes(b"what macOS leaves behind")
    savemat(root / "data" / "shapes48.mat", {"x": np.zeros(3)})
    archive = tmp_path_factory.mktemp("archive") / "nips2015-analogy-data.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(root / "data" / "shapes48.mat", "data/shapes48.mat")
        tar.add(root / "data" / "shapes48.mat", "data/sprites/sprites_1.mat")
        files = sorted(folder.iterdir())
        for k in RNG.permutation(len(files)):
            tar.add(files[k], f"./data/cars/{files[k].name}")
    return root, archive


@pytest.mark.parametrize("packed", [False, True])
def test_cars3d_run_by_elevation_azimuth_and_object(cars: tuple[Path, Path], packed: bool) -> None:
    source = opened("cars3d", cars[packed], 8, 3)
    assert len(source) == 17_568
    assert list(source.factor_names) == ["elevation", "azimuth", "object"]
    assert tuple(source.factor_sizes) == (4, 24, 183)
    pictures, labels = everything(source)
    np.testing.assert_array_equal(known(source)[:, ::-1], pictures[:, :, 3, 5])  # by what the picture itself says
    np.testing.assert_array_equal(known(source)[:200, 2], np.arange(200) % 183)  # the object is the fastest
    np.testing.assert_array_equal(labels, known(source)[:, 2])
    assert list(source.class_names) == CARS


def test_cars3d_rows_and_columns_are_not_exchanged_and_sizes_fit(
    cars: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orthogan.data.sources.cars3d.SIZES", (4, 24, 2))
    published = np.zeros((128, 128, 3, 24, 4), np.uint8)
    published[:64, :, 0, 5, 2] = 200  # the upper half red, in one view
    savemat(tmp_path / "car_001_mesh.mat", {"im": published})
    savemat(tmp_path / "car_002_mesh.mat", {"im": np.zeros_like(published)})
    source = opened("cars3d", tmp_path, 64, 3)
    picture = FactorGrid(source).sample(np.array([[2, 5, 0]]))[0]
    np.testing.assert_allclose(picture[0, :28], 200, atol=2)  # the filter rings
    assert not picture[1:].any()
    assert picture[:, 36:].max() <= 2
    assert everything(source)[0].any(axis=(1, 2, 3)).sum() == 1
    reference = np.array(Image.fromarray(published[..., 5, 2]).resize((64, 64), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(picture, reference.transpose(2, 0, 1))
    assert everything(opened("cars3d", tmp_path, 16, 1))[0].shape == (192, 1, 16, 16)


def test_cars3d_that_are_not_as_published_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"contains no cars; data\.path must name nips2015-analogy-data\.tar\.gz"):
        opened("cars3d", tmp_path, 8, 3)
    file = tmp_path / "car_001_mesh.mat"
    savemat(file, {"im": car(0)})
    with pytest.raises(UserError, match=r"holds 1 \.mat files of cars, expected 183"):
        opened("cars3d", tmp_path, 8, 3)
    monkeypatch.setattr("orthogan.data.sources.cars3d.SIZES", (4, 24, 1))
    for wrong in (car(0).transpose(0, 1, 2, 4, 3), car(0)[..., 0], car(0).astype(float)):
        savemat(file, {"im": wrong})
        with pytest.raises(UserError, match=r"car_001_mesh\.mat: 'im' is .* expected uint8 \(128, 128, 3, 24, 4\)"):
            opened("cars3d", tmp_path, 8, 3)
    savemat(file, {"mask": car(0)})
    with pytest.raises(UserError, match=r"car_001_mesh\.mat: 'im' is missing"):
        opened("cars3d", tmp_path, 8, 3)
    file.write_bytes(b"junk")
    with pytest.raises(UserError, match=r"car_001_mesh\.mat: is damaged, or is not a \.mat file"):
        opened("cars3d", tmp_path, 8, 3)
    (tmp_path / "nips2015-analogy-data.tar.gz").write_bytes(gzip.compress(b"junk"))
    with pytest.raises(UserError, match=r"tar\.gz: cannot be read"):
        opened("cars3d", tmp_path / "nips2015-analogy-data.tar.gz", 8, 3)


# SmallNORB

NORB = {"train": ("5x46789", "training", (4, 6, 7, 8, 9)), "test": ("5x01235", "testing", (0, 1, 2, 3, 5))}


def matrix(array: np.ndarray) -> bytes:
    """The format of NORB's readme: three lengths even for a vector, the superfluous ones 1."""
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[array.dtype.name]
    lengths = [*array.shape, *[1] * (3 - array.ndim)]
    return struct.pack(f"<Ii{len(lengths)}i", magic, array.ndim, *lengths) + array.tobytes()


def norb_rows(part: str) -> np.ndarray:
    """Published numbers (150, 5): a full grid, in no order, of all toys but few angles and lights; azimuths even."""
    rows = np.array(list(itertools.product(range(5), NORB[part][2], (0, 8), (34,), (0, 2, 5))), np.int32)
    return np.random.default_rng(1).permutation(rows)


def write_norb(
    folder: Path, part: str, rows: np.ndarray | None = None, *, side: int = 96, zipped: bool = False
) -> None:
    """Each picture of the first camera is 200 + its category and 100 + its instance; the second camera is black."""
    rows = norb_rows(part) if rows is None else rows
    pairs = np.zeros((len(rows), 2, side, side), np.uint8)
    pairs[:, 0, : side // 2] = 200 + rows[:, 0, None, None]
    pairs[:, 0, side // 2 :] = 100 + rows[:, 1, None, None]
    for kind, array in (("dat", pairs), ("cat", rows[:, 0].copy()), ("info", rows[:, 1:].copy())):
        name = f"smallnorb-{NORB[part][0]}x9x18x6x2x96x96-{NORB[part][1]}-{kind}.mat"
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(matrix(array), 1))
        else:
            (folder / name).write_bytes(matrix(array))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("part", ["train", "test"])
def test_smallnorb_halves_keep_their_own_instances(tmp_path: Path, part: str, zipped: bool) -> None:
    write_norb(tmp_path, part, zipped=zipped)
    source = opened("smallnorb", tmp_path, 96, 1, split=part)
    pictures, labels = everything(source)
    expected = norb_rows(part) // [1, 1, 1, 2, 1]
    np.testing.assert_array_equal(known(source), expected)
    assert set(known(source)[:, 1]) == set(NORB[part][2])
    assert list(source.factor_names) == ["category", "instance", "elevation", "azimuth", "lighting"]
    assert tuple(source.factor_sizes) == (5, 10, 9, 18, 6)
    # Read as signed bytes, 200 would be negative; of the pair only the first camera is taken.
    np.testing.assert_array_equal(pictures[:, 0, 10, 10], 200 + expected[:, 0])
    np.testing.assert_array_equal(pictures[:, 0, 90, 10], 100 + expected[:, 1])
    np.testing.assert_array_equal(labels, expected[:, 0])
    assert (source.name, source.class_names[4]) == (f"smallnorb-{part}", "car")
    assert everything(opened("smallnorb", tmp_path, 64, 3, split=part))[0].shape == (150, 3, 64, 64)


def test_both_halves_of_smallnorb_together(tmp_path: Path) -> None:
    for part in NORB:
        write_norb(tmp_path, part, side=8)
    source = opened("smallnorb", tmp_path, 8, 1, split="all")
    halves = [opened("smallnorb", tmp_path, 8, 1, split=part) for part in ("train", "test")]
    np.testing.assert_array_equal(everything(source)[0], np.concatenate([everything(half)[0] for half in halves]))
    np.testing.assert_array_equal(known(source), np.concatenate([known(half) for half in halves]))
    assert FactorGrid(source, occurring=True).factor_sizes == (5, 10, 2, 1, 3)
    with pytest.raises(UserError, match=r"data\.split: smallnorb has train, test, all, not 'valid'"):
        opened("smallnorb", tmp_path, 8, 1, split="valid")


def test_smallnorb_that_is_not_as_published_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither smallnorb-5x46789.*-dat\.mat nor .*gz"):
        opened("smallnorb", tmp_path, 8, 1)
    for add, message in (
        ([0, 0, 0, 1, 0], "odd azimuths"),
        ([1, 0, 0, 0, 0], r"-cat\.mat: category \(column 0\) runs from 1 to 5, expected 0 to 4"),
        ([0, 0, 9, 0, 0], r"-info\.mat: elevation \(column 1\) runs from 9 to 17, expected 0 to 8"),
        ([0, 0, 0, 2, 0], r"-info\.mat: azimuth \(column 2\) runs from 18 to 18, expected 0 to 17"),
        ([0, -4, 0, 0, 0], r"-info\.mat: has the instance 0, expected 4, 6, 7, 8, 9; are training and test"),
    ):
        write_norb(tmp_path, "train", norb_rows("train") + np.array(add, np.int32), side=8)
        with pytest.raises(UserError, match=message):
            opened("smallnorb", tmp_path, 8, 1)
    stem = "smallnorb-5x46789x9x18x6x2x96x96-training"
    for kind, array, message in (
        (
            "dat",
            np.zeros((150, 8, 8), np.uint8),
            r"-dat\.mat: holds uint8 \(150, 8, 8\), expected uint8 \(N, 2, 96, 96\)",
        ),
        ("dat", np.zeros((149, 2, 8, 8), np.uint8), r"-dat\.mat: .* N=150 as in the -cat"),
        ("info", np.zeros((150, 5), np.int32), r"-info\.mat: holds int32 \(150, 5\), expected int32 \(150, 4\)"),
        ("cat", np.zeros((150, 1), np.int32), r"-cat\.mat: holds int32 \(150, 1\), expected int32 \(150,\)"),
        ("cat", np.zeros(150, np.uint8), r"-cat\.mat: holds uint8"),
    ):
        write_norb(tmp_path, "train", side=8)
        (tmp_path / f"{stem}-{kind}.mat").write_bytes(matrix(array))
        with pytest.raises(UserError, match=message):
            opened("smallnorb", tmp_path, 8, 1)


def test_a_damaged_matrix_file_is_named(tmp_path: Path) -> None:
    good = matrix(np.arange(12, dtype=np.int32).reshape(2, 2, 3, 1))
    for name, content, message in (
        ("a.mat", good[:-1], r"a\.mat: has 47 bytes after its header, but the header says int32 \(2, 2, 3, 1\)"),
        ("a.mat", matrix(np.zeros(0, np.int32)), r"has 0 bytes after its header, but the header says int32 \(0,\)"),
        ("a.mat", good + b"x", "has 49 bytes after its header"),
        ("a.mat", good[:22], "not a SmallNORB matrix"),
        ("a.mat", b"", r"a\.mat: not a SmallNORB matrix: magic number 0x0, expected 0x1e3d4c55"),
        ("a.mat", b"MATLAB 5.0 MAT-file, Platform: posix", "not a SmallNORB matrix: magic number 0x4c54414d"),
        ("a.mat", struct.pack(">Ii3i", 0x1E3D4C54, 1, 1, 1, 1), "not a SmallNORB matrix: magic number 0x544c3d1e"),
        ("a.mat.gz", gzip.compress(good)[:-9], r"a\.mat\.gz: is damaged"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_norb(tmp_path / name)
    (tmp_path / "a.mat").write_bytes(good)
    np.testing.assert_array_equal(read_norb(tmp_path / "a.mat"), np.arange(12).reshape(2, 2, 3, 1))


# Observations by factors


def grid_source(factors: np.ndarray, sizes: tuple[int, ...]) -> ArraySource:
    """Pictures of 2 x 2 pixels, the first four of which are the factors."""
    images = np.zeros((len(factors), 1, 2, 2), np.uint8)
    images.reshape(len(factors), 4)[:, : factors.shape[1]] = factors
    names = [f"f{k}" for k in range(len(sizes))]
    return ArraySource("toy", images, factors=factors, factor_names=names, factor_sizes=sizes)


def shown(pictures: np.ndarray, count: int) -> np.ndarray:
    return pictures.reshape(len(pictures), -1)[:, :count]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_a_grid_gives_the_picture_of_each_combination_and_refuses_the_absent(
    sizes: list[int], data: st.DataObject
) -> None:
    every = np.array(list(itertools.product(*map(range, sizes))))
    kept = data.draw(st.permutations(range(len(every))))[: data.draw(st.integers(1, len(every)))]
    factors = every[kept].astype(data.draw(st.sampled_from([np.uint8, np.int16, np.int64])))
    grid = FactorGrid(grid_source(factors, tuple(sizes)))
    assert (grid.factor_sizes, grid.combinations) == (tuple(sizes), len(every))
    present = set(kept)
    for i, combination in enumerate(every):
        if i in present:
            np.testing.assert_array_equal(shown(grid.sample(combination[None]), len(sizes))[0], combination)
            assert grid.rows(combination[None].astype(np.uint8))[0] == kept.index(i)
        else:
            with pytest.raises(ValueError, match=f"toy: no image has f0={combination[0]}"):
                grid.sample(combination[None])
    # Numbered by what occurs, it is the same grid under other names.
    short = FactorGrid(grid_source(factors, tuple(sizes)), occurring=True)
    assert [len(v) for v in short.values] == [len(set(column)) for column in factors.T]
    codes = np.stack([[list(v).index(x) for x in column] for v, column in zip(short.values, factors.T, strict=True)], 1)
    np.testing.assert_array_equal(shown(short.sample(codes), len(sizes)), factors)


def test_a_full_grid_in_order_needs_no_table_and_a_source_is_asked_for_its_rows() -> None:
    sprites = SpriteGrid(coloured=False, resolution=64, channels=1)
    grid = FactorGrid(sprites)
    assert grid._table is None
    wanted = RNG.integers(0, FACTOR_SIZES, (20, 5))
    np.testing.assert_array_equal(grid.sample(wanted)[:, 0], render(wanted) * 255)
    assert grid.factor_names == ("shape", "scale", "orientation", "x", "y")


def test_what_is_no_grid_or_no_factor_is_refused() -> None:
    factors = np.array([[0, 1], [2, 0], [0, 1]])
    with pytest.raises(ValueError, match="images 0 and 2 have the same factors, f0=0, f1=1"):
        FactorGrid(grid_source(factors, (3, 2)))
    with pytest.raises(ValueError, match="toy: f0=2: must be 0 to 1"):
        FactorGrid(grid_source(factors[:2], (2, 2)))
    with pytest.raises(ValueError, match="plain: its factors are not known"):
        FactorGrid(ArraySource("plain", np.zeros((2, 1, 2, 2), np.uint8)))
    grid = FactorGrid(grid_source(factors[:2], (3, 2)))
    for wrong, message in (
        (np.array([[0, -1]]), "f1=-1: must be 0 to 1"),
        (np.array([[3, 0]]), "f0=3: must be 0 to 2"),
        (np.array([0, 1]), r"integers \(n, 2\), not int64 of shape \(2,\)"),
        (np.array([[0.0, 1.0]]), r"integers \(n, 2\), not float64"),
        (np.array([[2, 1]]), r"f0=2, f1=1: 2 of 6 combinations exist; FactorGrid\(source, occurring=True\)"),
    ):
        with pytest.raises(ValueError, match=message):
            grid.sample(wrong)


def test_the_interventions_run_on_a_loaded_grid(tmp_path: Path) -> None:
    write_norb(tmp_path, "train", side=8)
    source = opened("smallnorb", tmp_path, 8, 1)

    def encoder(pictures: np.ndarray) -> np.ndarray:
        """Reads the category and the instance off the picture; lights and angles it cannot see."""
        return np.stack([pictures[:, 0, 0, 0] - 200.0, pictures[:, 0, 7, 0] - 100.0], axis=1)

    with pytest.raises(ValueError, match="no image has"):
        factor_vae(FactorGrid(source), encoder, train_votes=50, test_votes=50, variance_samples=100)
    full = FactorGrid(source, occurring=True)
    assert full.factor_sizes == (5, 5, 2, 1, 3)
    assert full.values[1].tolist() == [4, 6, 7, 8, 9]
    score = factor_vae(full, encoder, train_votes=200, test_votes=200, variance_samples=300, batch=16)
    assert score.details["factors"].tolist() == [0, 1, 2, 4]
    assert score.details["votes"][0].tolist() == [score.details["votes"][0].sum(), 0]  # category held: code 0 is still
    assert score.details["votes"][1, 0] == 0
    assert 0.5 < beta_vae(full, encoder, train_points=200, test_points=200, batch=16).value < 1


def test_a_full_grid_scores_one_with_an_encoder_that_reads_the_factors(cars: tuple[Path, Path]) -> None:
    grid = FactorGrid(opened("cars3d", cars[0], 8, 3))
    score = factor_vae(
        grid, lambda x: x[:, :, 0, 0] / [183, 24, 4], train_votes=100, test_votes=100, variance_samples=500, batch=16
    )
    assert score.value == 1
    assert score.details["assigned"].tolist() == [2, 1, 0]  # red is the object, green the azimuth, blue the elevation
