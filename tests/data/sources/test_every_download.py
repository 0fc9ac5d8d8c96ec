"""The sets' files are imitated in their formats, a few images each; nothing is downloaded."""

from __future__ import annotations

import gzip
import pickle
import socket
import struct
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from orthogan.data import ImageSource, open_source
from orthogan.data.download import NETWORK_TIMEOUT
from orthogan.data.sources import fashion_mnist
from orthogan.errors import UserError
from tests.fixtures.sets import solid

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        assert socket.getdefaulttimeout() == NETWORK_TIMEOUT  # a server that does not answer is not waited for long
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(fashion_mnist, "PACKAGED", str(tmp_path / "packaged"))  # this machine may have Debian's package


def everything(source: ImageSource) -> tuple[np.ndarray, np.ndarray]:
    return source.read(np.arange(len(source)))


def idx(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_fashion(folder: Path, *, zipped: bool, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    images, labels = RNG.integers(0, 256, (20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8) % 10
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return images, labels


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_fashion_mnist_gets_a_black_border(tmp_path: Path, zipped: bool, named: bool) -> None:
    folder = tmp_path / "mine" if named else tmp_path / "FashionMNIST" / "raw"
    images, labels = write_fashion(folder, zipped=zipped)
    source = open_source(
        "fashion-mnist", path=str(folder) if named else None, root=str(tmp_path), resolution=32, channels=1
    )
    pictures, classes = everything(source)
    np.testing.assert_array_equal(pictures[:, 0, 2:30, 2:30], images)
    assert pictures.sum(dtype=np.int64) == images.sum(dtype=np.int64)
    np.testing.assert_array_equal(classes, labels)
    assert (source.name, source.num_classes) == ("fashion-mnist-train", 10)
    assert source.class_names[9] == "Ankle boot"


def test_fashion_mnist_in_other_forms(tmp_path: Path) -> None:
    images, _ = write_fashion(tmp_path, zipped=True, part="t10k")

    def opened(resolution: int, channels: int) -> np.ndarray:
        source = open_source(
            "fashion-mnist", path=str(tmp_path), split="test", resolution=resolution, channels=channels
        )
        return everything(source)[0]

    np.testing.assert_array_equal(opened(28, 1)[:, 0], images)
    np.testing.assert_array_equal(opened(28, 3), images[:, None].repeat(3, 1))
    assert opened(64, 1).shape == (20, 1, 64, 64)


def test_damaged_idx_files(tmp_path: Path) -> None:
    write_fashion(tmp_path, zipped=True)
    images = tmp_path / "train-images-idx3-ubyte.gz"
    good = images.read_bytes()
    for data, message in {
        good[:300]: "is damaged",
        b"plain words": "is damaged",
        gzip.compress(b"\0\0\x0d\x01" + bytes(8)): "not an IDX file",
        gzip.compress(idx(np.zeros((2, 28, 28), np.uint8))[:-5]): "the header says",
        gzip.compress(idx(np.zeros(20, np.uint8))): "expected images",
        gzip.compress(b"\0\0\x08\xff" + bytes(2000)): "not an IDX file",
        gzip.compress(b"\0\0\x08\x04" + b"\0\1\0\0" * 4 + bytes(2000)): "claims to hold",
        gzip.compress(b"\0\0\x08\x03" + struct.pack(">III", 6_000_000, 28, 28)): "claims to hold 4,486 MiB",
        gzip.compress(idx(np.zeros((2, 28, 28), np.uint8)) + bytes(1 << 25)): "the header says",
    }.items():
        images.write_bytes(data)
        with pytest.raises(UserError, match=message) as caught:
            open_source("fashion-mnist", path=str(tmp_path), resolution=32, channels=1)
        assert "train-images-idx3-ubyte.gz" in str(caught.value)


def write_cifar(root: Path, kind: str) -> np.ndarray:
    dataset = datasets.CIFAR10 if kind == "cifar10" else datasets.CIFAR100
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    count = 10 if kind == "cifar10" else 100
    batches = []
    for name, _ in dataset.train_list + dataset.test_list:
        pixels = RNG.integers(0, 256, (4, 3072), np.uint8)
        batches.append(pixels)
        labels = {"labels" if kind == "cifar10" else "fine_labels": [0, 1, 2, count - 1]}
        (folder / name).write_bytes(pickle.dumps({"data": pixels, **labels}))
    names = {dataset.meta["key"]: [f"name {k}" for k in range(count)]}
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(names))
    return np.concatenate(batches).reshape(-1, 3, 32, 32)


@pytest.mark.parametrize(("kind", "train", "classes"), [("cifar10", 20, 10), ("cifar100", 4, 100)])
def test_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, train: int, classes: int) -> None:
    pixels = write_cifar(tmp_path, kind)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    options = {"root": str(tmp_path), "download": False, "channels": 3}
    for split, expected in (("train", pixels[:train]), ("test", pixels[train:])):
        source = open_source(kind, split=split, resolution=32, **options)
        images, labels = everything(source)
        np.testing.assert_array_equal(images, expected)
        assert labels.tolist() == [0, 1, 2, classes - 1] * (len(expected) // 4)
        assert source.name == f"{kind}-{split}"
        assert (source.num_classes, source.class_names[1]) == (classes, "name 1")
    small = open_source(kind, resolution=16, **options)
    means = pixels[:train].reshape(-1, 3, 16, 2, 16, 2).mean((3, 5)).mean((2, 3))
    np.testing.assert_allclose(everything(small)[0].mean((2, 3)), means, atol=3)
    prints = {open_source(kind, split=s, resolution=32, **options).fingerprint() for s in ("train", "test")}
    assert len({*prints, small.fingerprint()}) == 3


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda self: True)
    stored = {part: RNG.integers(0, 256, (n, 3, 96, 96), np.uint8) for part, n in (("train", 3), ("unlabeled", 4))}
    for part, images in stored.items():
        images.transpose(0, 1, 3, 2).tofile(folder / f"{part}_X.bin")  # its pixels stand column by column
    np.array([1, 10, 3], np.uint8).tofile(folder / "train_y.bin")
    (folder / "class_names.txt").write_text("\n".join(f"c{k}" for k in range(10)))
    options = {"root": str(tmp_path), "download": False, "channels": 3}
    train = open_source("stl10", resolution=96, **options)
    np.testing.assert_array_equal(everything(train)[0], stored["train"])
    assert everything(train)[1].tolist() == [0, 9, 2]
    both = open_source("stl10", split="train+unlabeled", resolution=96, **options)
    np.testing.assert_array_equal(everything(both)[0], np.concatenate([stored["train"], stored["unlabeled"]]))
    assert both.num_classes == 0
    assert everything(both)[1].tolist() == [0] * 7
    assert everything(open_source("stl10", split="unlabeled", resolution=48, **options))[0].shape == (4, 3, 48, 48)


def write_celeba(root: Path) -> None:
    for k, part in enumerate((0, 0, 1, 2, 0)):
        name = f"{k:06}.jpg"
        picture = Image.new("RGB", (178, 218), (255, 0, 0))
        picture.paste((0, 10 * k, 0), (0, 20, 178, 198))  # the central square
        (root / "celeba" / "img_align_celeba").mkdir(parents=True, exist_ok=True)
        picture.save(root / "celeba" / "img_align_celeba" / name, quality=100, subsampling=0)
        with (root / "celeba" / "list_eval_partition.txt").open("a") as file:
            file.write(f"{name} {part}\n")


def test_celeba(tmp_path: Path) -> None:
    write_celeba(tmp_path)
    options = {"root": str(tmp_path), "resolution": 64, "channels": 3, "download": False}
    for split, members in {"train": [0, 1, 4], "all": [0, 1, 2, 3, 4]}.items():
        source = open_source("celeba", split=split, **options)
        images, _ = everything(source)
        np.testing.assert_allclose(images[:, 1].mean((1, 2)), [10 * k for k in members], atol=1.5)
        assert images[:, 0].max() < 20  # nothing of the red border
        assert (source.name, source.num_classes) == (f"celeba-{split}", 0)
    names = "Bald Hat Smiling"
    rows = [f"{k:06}.jpg {' '.join(map(str, values))}" for k, values in enumerate([(-1, 1, 1), (1, -1, -1)] * 3)]
    table = tmp_path / "celeba" / "list_attr_celeba.txt"
    table.write_text("\n".join(["6", names, *rows[:-1]]) + "\n")
    source = open_source("celeba", attributes=["Smiling", "Bald"], **options)
    assert [source.class_names[k] for k in source.read(np.arange(3))[1]] == ["Smiling", "Bald", "Smiling"]
    with pytest.raises(UserError, match=r"no attribute 'Smilin'.*Smiling"):
        open_source("celeba", attributes=["Smilin"], **options)
    table.write_text("\n".join(["6", names, *rows[:4]]))
    with pytest.raises(UserError, match=r"no line of 3 attributes for 1 image, such as 000004\.jpg"):
        open_source("celeba", attributes=["Bald"], **options)
    (tmp_path / "celeba" / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(UserError, match=r"lacks 1 image, such as 000004\.jpg"):
        open_source("celeba", **options)


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("fashion-mnist", "train-images-idx3-ubyte.gz"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python.tar.gz"),
        ("stl10", "stl10_binary.tar.gz"),
        ("celeba", "img_align_celeba.zip"),
    ],
)
def test_absent_sets_say_which_file_to_put_where(tmp_path: Path, kind: str, file: str, download: bool) -> None:
    before = socket.getdefaulttimeout()
    with pytest.raises(UserError) as caught:
        open_source(kind, root=str(tmp_path / "here"), resolution=32, channels=3, download=download)
    message = str(caught.value)
    assert message.startswith(kind)
    assert file in message
    assert str(tmp_path / "here") in message
    assert socket.getdefaulttimeout() == before


def test_fashion_mnist_of_the_system_is_used_where_no_folder_is_named(tmp_path: Path) -> None:
    packaged, root = Path(fashion_mnist.PACKAGED), tmp_path / "data"
    _fashion_files(packaged, gray=3)
    options: dict[str, Any] = {"root": str(root), "resolution": 28, "channels": 1, "download": False}
    assert open_source("fashion-mnist", **options).read(np.arange(2))[0].tolist() == np.full((2, 1, 28, 28), 3).tolist()
    with pytest.raises(UserError, match=r"mine does not contain train-images"):  # a named folder is never replaced
        open_source("fashion-mnist", path=str(tmp_path / "mine"), **options)
    _fashion_files(root / "FashionMNIST" / "raw", gray=5)  # the user's own files come first
    assert open_source("fashion-mnist", **options).read(np.arange(2))[0].tolist() == np.full((2, 1, 28, 28), 5).tolist()
    (packaged / "train-labels-idx1-ubyte").unlink()
    (root / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=r"raw does not contain train-labels-idx1-ubyte\.gz"):
        open_source("fashion-mnist", **options)


def _fashion_files(folder: Path, gray: int) -> None:
    """Two images of one gray level, and their labels, as IDX files."""
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte").write_bytes(idx(np.full((2, 28, 28), gray, np.uint8)))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(np.array([0, 1], np.uint8)))


def test_named_folder_without_the_files(tmp_path: Path) -> None:
    solid(tmp_path / "a.png", 1)
    with pytest.raises(UserError, match=r"does not contain train-images-idx3-ubyte\.gz and train-labels"):
        open_source("fashion-mnist", path=str(tmp_path), resolution=32, channels=1)


@pytest.mark.parametrize(
    ("kind", "split", "allowed"),
    [
        ("cifar10", "valid", "train, test"),
        ("fashion-mnist", "val", "train, test"),
        ("stl10", "all", "train, test, unlabeled, train"),
        ("celeba", "unlabeled", "train, valid, test, all"),
        ("sprites", "test", "train"),
    ],
)
def test_unknown_parts(kind: str, split: str, allowed: str) -> None:
    with pytest.raises(UserError, match=rf"data\.split: {kind} has {allowed}"):
        open_source(kind, split=split, resolution=32, channels=3)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (pickle.dumps({"labels": [0, 1]}), "has no data"),
        (pickle.dumps({"data": [[0] * 3072], "labels": [0]}), "array of numbers"),
        (pickle.dumps({"data": np.zeros((1, 3072)), "labels": [0]}), "uint8"),
        (pickle.dumps({"data": np.zeros((1, 9), np.uint8), "labels": [0]}), r"\(1, 9\)"),
        (pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}), "1 label for 2 images"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": ["a"]}), "labels must be"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]}), "labels range from"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [-1]}), "labels range from"),
        (b"cos\nsystem\n(S'touch canary'\ntR.", "has no data"),
        (b"(dS'data'\ncos\nsystem\n(S'touch canary'\ntRsS'labels'\n(lI0\nas.", "array of numbers"),
        (b"junk", "not a readable pickle"),
        (b"", "not a readable pickle"),
    ],
)
def test_the_pickles_of_cifar_are_not_run_even_with_the_right_checksums(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar(tmp_path, "cifar10")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    with pytest.raises(UserError, match=says) as caught:
        open_source("cifar10", split="test", root=str(tmp_path), resolution=32, channels=3, download=False)
    assert "cifar-10-batches-py" in str(caught.value)
    assert not (tmp_path / "canary").exists()


def test_cifar_of_another_content_is_damaged_and_asks_no_network_unasked(tmp_path: Path) -> None:
    write_cifar(tmp_path, "cifar10")
    (tmp_path / datasets.CIFAR10.filename).write_bytes(b"not the archive")
    with pytest.raises(UserError, match=r"cifar10: data_batch_1 is missing or damaged.* data\.download is false"):
        open_source("cifar10", root=str(tmp_path), resolution=32, channels=3, download=False)


@pytest.mark.parametrize("kind", ["fashion-mnist", "cifar10", "cifar100", "stl10", "celeba"])
@pytest.mark.parametrize("kept", [False, True])
def test_a_failed_download_leaves_no_empty_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, kept: bool
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError("no network here")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    root = tmp_path / "new" / "data"
    if kept:
        root.mkdir(parents=True)
    with pytest.raises(UserError, match="not found, and the download failed"):
        open_source(kind, root=str(root), resolution=32, channels=3)
    assert root.exists() == kept
    assert (tmp_path / "new").exists() == kept


@pytest.mark.parametrize("root", ["a" * 300, "/dev/null/x", "nul\0"])
@pytest.mark.parametrize("kind", ["fashion-mnist", "cifar10", "stl10", "celeba"])
def test_roots_that_cannot_be(kind: str, root: str) -> None:
    with pytest.raises(UserError):
        open_source(kind, root=root, download=False, resolution=32, channels=3)
