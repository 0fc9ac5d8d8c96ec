from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orthogan.data import ImageSource, open_source
from orthogan.data.label_vectors import MOST_VECTORS, name_vector, vector_annotation
from orthogan.data.views import Part
from orthogan.errors import UserError
from tests.fixtures.sets import greys, opened

VECTORS = [[0.25, -1], [0.5, 2], [0.25, -1], [-0.0, 2]]


def rows(source: ImageSource) -> list[list[float]]:
    assert source.label_vectors is not None
    assert len(source.label_vectors) == source.num_classes == len(source.class_names)
    _, labels = source.read(np.arange(len(source)))
    return source.label_vectors[labels].tolist()


def test_every_different_vector_is_a_class() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, (500, 4)).astype(np.float64) / 3
    note = vector_annotation(values)
    assert note.label_vectors is not None
    assert note.labels is not None
    np.testing.assert_array_equal(note.label_vectors[note.labels], values.astype(np.float32))
    assert len({tuple(row) for row in note.label_vectors.tolist()}) == len(note.label_vectors) == len(set(note.labels))
    assert len(note.class_names) == len(set(note.class_names)) == len(note.label_vectors)
    assert vector_annotation(np.array([[0.0], [-0.0]])).labels is None  # both zeros are one class


def test_names_of_vectors() -> None:
    assert name_vector(np.array([1.0, 0.0, 1.0]), ["a", "b", "c"]) == "a+c"
    assert name_vector(np.array([0.0, 0.0]), ["a", "b"]) == "none"
    assert name_vector(np.array([0.5, 1.0]), ["a", "b"]) == "0.5 1"
    assert name_vector(np.array([1.0, 0.0])) == "1 0"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3), "shape"),
        (np.zeros((3, 1), complex), "complex"),
        (np.zeros((2, 1025)), "1025 numbers"),
        (np.array([[0.0], [np.nan]]), "NaN"),
        (np.array([[0.0], [1e39]]), "infinite"),
        (np.arange(MOST_VECTORS + 1)[:, None], "65,537 different label vectors"),
    ],
)
def test_unusable_vectors_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        vector_annotation(values)


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_vectors_in_dataset_json(tmp_path: Path, limit: int) -> None:
    greys(tmp_path, 4)
    names = sorted(path.name for path in tmp_path.glob("*.png"))
    write(tmp_path, dict(zip(names, VECTORS, strict=True)))
    source = opened("folder", tmp_path, 8, 1, in_memory_limit=limit)
    assert rows(source) == VECTORS
    assert rows(Part(source, np.array([3, 1]), "part")) == [VECTORS[3], VECTORS[1]]
    assert source.classes_in_words(used=True) == "vectors of 2 numbers, 3 different ones"
    before = source.fingerprint()
    write(tmp_path, dict(zip(names, [*VECTORS[:3], [0.125, 2]], strict=True)))
    assert opened("folder", tmp_path, 8, 1, in_memory_limit=limit).fingerprint() != before
    for bad, message in (([1], "lists of 2 numbers"), (3, "lists of 2 numbers"), (["a", 1], "lists of 2 numbers")):
        write(tmp_path, dict(zip(names, [*VECTORS[:3], bad], strict=True)))
        assert message in opened("folder", tmp_path, 8, 1).why_unlabeled


def write(folder: Path, labels: dict[str, Any]) -> None:
    (folder / "dataset.json").write_text(json.dumps({"labels": list(labels.items())}))


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5"])
def test_vectors_in_arrays(tmp_path: Path, suffix: str) -> None:
    path, images = tmp_path / f"a{suffix}", np.zeros((4, 8, 8), np.uint8)
    images[1] = 200
    labels = np.array(VECTORS)
    if suffix == ".npz":
        np.savez(path, images=images, labels=labels)
    elif suffix == ".npy":
        np.save(path, images)
        np.save(path.with_suffix(".labels.npy"), labels)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["images"], file["labels"] = images, labels
    assert opened("array", path, 8, 1).label_vectors is None  # factors
    assert rows(opened("array", path, 8, 1, labels="vectors")) == VECTORS
    assert rows(opened("array", path, 8, 1, labels="vectors", in_memory_limit=0)) == VECTORS


def test_vectors_that_are_not_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(UserError, match=r"no labels in .*a\.npz"):
        open_source("array", path=str(tmp_path / "a.npz"), resolution=8, channels=1, labels="vectors")
