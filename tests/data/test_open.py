from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orthogan.data import DATA_SOURCES, ArraySource, open_source
from orthogan.data.config import DataConfig
from orthogan.errors import UserError
from tests.fixtures.sets import array_source, greys


def test_the_facts_of_the_sources_fit_together() -> None:
    for name, source in DATA_SOURCES.items():
        assert source.__doc__
        assert source.unlabeled == () or set(source.unlabeled) <= set(source.splits), name
        assert DataConfig(
            source=name,
            path="x" if source.path == "required" else None,
            resolution=32,
            channels=source.channels[-1],
        ).one_part == (len(source.splits) == 1)
    assert [name for name, source in DATA_SOURCES.items() if source().generated] == [
        "faces",
        "portraits",
        "sprites",
        "sprites-colour",
    ]


@pytest.mark.parametrize("name", ["faces", "sprites"])
def test_sources_that_say_so_have_factors_and_classes(name: str) -> None:
    source = open_source(name, count=8)
    assert DATA_SOURCES.get(name).factors
    assert source.factors is not None
    assert source.num_classes > 0


def test_the_guide_lists_every_source() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "data.md").read_text("utf-8")
    table = guide.split("| `data.source` | what it reads |")[1].split("\n\n")[0]
    assert [name for name in DATA_SOURCES if f"`{name}`" not in table] == []


def test_folder_and_array_are_dispatched(tmp_path: Path) -> None:
    source = open_source("folder", path=str(greys(tmp_path / "f", 3)), resolution=8, channels=3)
    assert len(source) == 3
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8), np.uint8))
    assert len(open_source("array", path=str(tmp_path / "a.npz"), resolution=8, channels=1)) == 4


def test_a_path_stands_for_its_source_and_a_name_is_enough(tmp_path: Path) -> None:
    greys(tmp_path / "f", 3)
    images = np.full((4, 8, 8), 9, np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    np.save(tmp_path / "a.npy", images)
    archive = shutil.make_archive(str(tmp_path / "f"), "zip", tmp_path / "f")
    for path, count in ((f"{tmp_path}/f/", 3), (archive, 3), (tmp_path / "a.npz", 4), (tmp_path / "a.npy", 4)):
        source = open_source(str(path))
        assert (len(source), source.resolution, source.channels) == (count, 32, 3)
    image, label = open_source("sprites")[0]
    assert (image.shape, label) == ((3, 32, 32), 0)
    with pytest.raises(UserError, match="is neither a path nor one of"):
        open_source(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("cifar", {}, "'cifar' is neither a path nor one of array, cars3d, .*did you mean 'cifar10'"),
        ("folder", {}, r"data\.path: the source 'folder' needs"),
        ("array", {}, r"data\.path: the source 'array' needs"),
        ("cifar10", {"path": "x"}, r"data\.path: the source 'cifar10' takes no path"),
        (
            "cifar10",
            {"count": 5},
            r"data\.count: applies only to faces, portraits, sprites, sprites-colour, not to",
        ),
        ("sprites", {"channels": 2}, r"data\.channels: must be 1 or 3 for sprites, not 2"),
        ("folder", {"resolution": 0}, r"data\.resolution: must be at least 1"),
        ("folder", {"path": "nowhere/at/all"}, "nowhere/at/all: no such folder"),
    ],
)
def test_impossible_requests(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source(kind, **({"resolution": 32, "channels": 3} | options))


def test_array_source_checks_what_it_is_given() -> None:
    images = np.zeros((3, 1, 4, 4), np.uint8)
    for changed, message in (
        ({"images": images.astype(np.float32)}, "must be uint8"),
        ({"images": np.zeros((3, 17, 4, 4), np.uint8)}, "1 to 16"),
        ({"images": images[:0]}, "no images"),
        ({"labels": np.arange(2), "class_names": ["a", "b"]}, "labels of shape"),
        ({"labels": np.arange(3), "class_names": ["a", "b"]}, "labels range from 0 to 2"),
        ({"factors": np.zeros((3, 2)), "factor_names": ["x"]}, "factors have shape"),
    ):
        with pytest.raises(UserError, match=message):
            ArraySource("bad", **({"images": images} | changed))


def test_array_fingerprint_covers_pixels_labels_names_and_transform() -> None:
    base = array_source(9, classes=2)
    changed = base.images.copy()
    changed[8, 2, 3, 3] ^= 1
    other_labels = 1 - base.labels
    names = base.class_names
    variants = [
        base,
        ArraySource("x", changed, labels=base.labels, class_names=names),
        ArraySource("x", base.images, labels=other_labels, class_names=names),
        ArraySource("x", base.images, labels=base.labels, class_names=["p", "q"]),
        ArraySource("x", base.images, labels=base.labels, class_names=names, transform="other"),
    ]
    assert len({source.fingerprint() for source in variants}) == 5
    assert ArraySource("y", base.images.copy(), labels=base.labels, class_names=names).fingerprint() == (
        base.fingerprint()
    )
    # The memory layout does not matter.
    strided = np.asfortranarray(base.images)
    assert ArraySource("z", strided, labels=base.labels, class_names=names).fingerprint() == base.fingerprint()
