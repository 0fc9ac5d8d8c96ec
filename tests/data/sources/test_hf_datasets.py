from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orthogan.data import ImageSource, open_source
from orthogan.errors import UserError
from tests.fixtures.sets import opened

datasets: Any = pytest.importorskip("datasets")

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
LABELS = [0, 1, 2, 0, 1, 2, 0, 1, 2]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path / "cache"))


def encoded(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def table(rows: Any = range(9), **columns: Any) -> Any:
    """Some of the images with their labels, as the library would make them."""
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "fox"])}
    values = {"image": [Image.fromarray(PIXELS[k]) for k in rows], "label": [LABELS[k] for k in rows]}
    found = datasets.Dataset.from_dict(values, features=datasets.Features(features))
    for name, value in columns.items():
        found = found.add_column(name, value)
    return found


def same(source: ImageSource, rows: list[int]) -> None:
    assert len(source) == len(rows)
    order = np.array([len(rows) - 1, 0, 1])
    images, labels = source.read(order)
    np.testing.assert_array_equal(images, PIXELS[rows][order].transpose(0, 3, 1, 2))
    assert labels.tolist() == [LABELS[rows[k]] for k in order]
    assert list(source.class_names) == ["cat", "dog", "fox"]


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_every_layout_gives_its_images_and_classes(tmp_path: Path, limit: int) -> None:
    table().save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=table(range(6)), test=table(range(6, 9))).save_to_disk(tmp_path / "two")
    (tmp_path / "hub" / "data").mkdir(parents=True)
    table([0, 1]).to_parquet(tmp_path / "hub" / "data" / "train-00000-of-00002.parquet")
    table([2, 3]).to_parquet(tmp_path / "hub" / "data" / "train-00001-of-00002.parquet")
    table([4, 5]).to_parquet(tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    table().to_parquet(tmp_path / "a [1] b.parquet")
    for name, split, rows in (
        ("one", "train", range(9)),
        ("two", "train", range(6)),
        ("two", "test", range(6, 9)),
        ("two/test", "train", range(6, 9)),
        ("hub", "train", range(4)),
        ("a [1] b.parquet", "train", range(9)),
    ):
        source = opened("datasets", tmp_path / name, 8, 3, split=split, in_memory_limit=limit)
        assert source.in_memory == (limit > 0)
        same(source, list(rows))
        again = pickle.loads(pickle.dumps(source))
        assert again.fingerprint() == source.fingerprint()
        same(again, list(rows))
    with pytest.raises(UserError, match=r"data\.split: .*two has train, test, not 'validation'"):
        opened("datasets", tmp_path / "two", 8, 3, split="validation")
    with pytest.raises(UserError, match=r"data\.split: .*hub has train, test, not 'validation'"):
        opened("datasets", tmp_path / "hub", 8, 3, split="validation")
    for name in ("one", "a [1] b.parquet"):
        with pytest.raises(UserError, match=r"data\.split: .* is a single .*, not 'test'"):
            opened("datasets", tmp_path / name, 8, 3, split="test")
        same(open_source(str(tmp_path / name), resolution=8), list(range(9)))  # by its path alone


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    prints = []
    for rows in ([0, 1, 2], [3, 4, 5]):
        table(rows).to_parquet(path)
        source = opened("datasets", path, 8, 3, in_memory_limit=0)
        same(source, rows)
        prints.append(source.fingerprint())
    assert prints[0] != prints[1]


def test_columns_are_options(tmp_path: Path) -> None:
    found = table(kind=["b", "a", "b", "a", "b", "a", "b", "a", "b"], number=[5, 7, 9] * 3, score=[0.5] * 9)
    found.add_column("mask", [encoded(255 - p) for p in PIXELS]).save_to_disk(tmp_path / "d")
    with pytest.raises(UserError, match=r"columns with images are image, mask; set data\.options\.image"):
        opened("datasets", tmp_path / "d", 8, 3)
    same(opened("datasets", tmp_path / "d", 8, 3, image="image"), list(range(9)))
    masks = opened("datasets", tmp_path / "d", 8, 3, image="mask", label="kind")
    np.testing.assert_array_equal(masks.read(np.arange(9))[0], 255 - PIXELS.transpose(0, 3, 1, 2))
    assert (masks.labels.tolist(), list(masks.class_names)) == ([1, 0, 1, 0, 1, 0, 1, 0, 1], ["a", "b"])
    numbers = opened("datasets", tmp_path / "d", 8, 3, image="image", label="number")
    assert (numbers.labels.tolist(), list(numbers.class_names)) == ([0, 1, 2] * 3, ["5", "7", "9"])
    for options, message in (
        ({"image": "imag"}, r"data\.options\.image: .* has no image column 'imag'.*image"),
        ({"image": "label"}, r"data\.options\.image: .* has no image column 'label'"),
        ({"image": "image", "label": "labell"}, r"data\.options\.label: .* has no column 'labell'"),
        ({"image": "image", "label": "score"}, r"data\.options\.label: .*'score' does not hold one label per image"),
    ):
        with pytest.raises(UserError, match=message):
            opened("datasets", tmp_path / "d", 8, 3, **options)


def test_lists_are_label_vectors(tmp_path: Path) -> None:
    several = datasets.Sequence(datasets.ClassLabel(names=["hat", "beard", "glasses"]))
    features = {"image": datasets.Image(), "tags": several, "pose": datasets.Sequence(datasets.Value("float32"))}
    tags = [[], [0], [1, 0], [2], [], [0], [1, 0], [2], []]
    poses = [[0.5, k] for k in range(9)]
    values = {"image": [Image.fromarray(p) for p in PIXELS], "tags": tags, "pose": poses}
    datasets.Dataset.from_dict(values, features=datasets.Features(features)).save_to_disk(tmp_path / "d")
    tagged = opened("datasets", tmp_path / "d", 8, 3, label="tags")
    assert [tagged.class_names[k] for k in tagged.labels[:4]] == ["none", "hat", "hat+beard", "glasses"]
    assert tagged.label_vectors is not None
    assert tagged.label_vectors[tagged.labels[2]].tolist() == [1, 1, 0]
    posed = opened("datasets", tmp_path / "d", 8, 3, label="pose")
    assert posed.label_vectors is not None
    np.testing.assert_array_equal(posed.label_vectors[posed.labels], np.array(poses, np.float32))
    values["tags"] = [*tags[:8], [-1]]  # -1 means a missing label there
    datasets.Dataset.from_dict(values, features=datasets.Features(features)).save_to_disk(tmp_path / "missing")
    with pytest.raises(UserError, match=r"holds \[-1\], but the classes are 0 to 2"):
        opened("datasets", tmp_path / "missing", 8, 3, label="tags")
    uneven = datasets.Dataset.from_dict({"image": values["image"], "label": [[1.0]] * 8 + [[1.0, 2.0]]})
    uneven.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "u")
    with pytest.raises(UserError, match="'label': the lists have different lengths"):
        opened("datasets", tmp_path / "u", 8, 3)


def test_parquet_of_other_tools(tmp_path: Path) -> None:
    """Neither of these files says that a column is an image."""
    import pyarrow as pa
    from pyarrow import parquet

    images = [encoded(p) for p in PIXELS]
    for name, column in (("bytes", images), ("struct", [{"bytes": b, "path": None} for b in images])):
        kind = pa.binary() if name == "bytes" else pa.struct({"bytes": pa.binary(), "path": pa.string()})
        parquet.write_table(pa.table({"x": pa.array(column, kind)}), tmp_path / f"{name}.parquet")
        source = opened("datasets", tmp_path / f"{name}.parquet", 8, 3)
        np.testing.assert_array_equal(source.read(np.arange(9))[0], PIXELS.transpose(0, 3, 1, 2))
        assert source.num_classes == 0
        assert "data.options.label" in source.why_unlabeled


def test_bad_rows_follow_the_policy_and_no_path_is_opened(tmp_path: Path) -> None:
    Image.fromarray(PIXELS[0]).save(tmp_path / "outside.png")
    rows = [{"bytes": encoded(p), "path": None} for p in PIXELS[:7]]
    rows += [{"bytes": None, "path": str(tmp_path / "outside.png")}, None]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet(tmp_path / "a.parquet")
    import pyarrow as pa
    from pyarrow import parquet

    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    parquet.write_table(pa.table({"image": pa.array(rows, kind)}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"row 7 cannot be read: .*only the path .*outside\.png"):
        opened("datasets", tmp_path / "a.parquet", 8, 3, bad_images="error")
    assert len(opened("datasets", tmp_path / "a.parquet", 8, 3, bad_limit=0.3)) == 7


def test_bad_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk.parquet").write_bytes(b"junk")
    (tmp_path / "junk.txt").write_bytes(b"junk")
    table().save_to_disk(tmp_path / "cut")
    (tmp_path / "cut" / "data-00000-of-00001.arrow").write_bytes(b"junk")
    table([0]).save_to_disk(tmp_path / "single")
    for name, message in {
        "missing": "no such file or folder; data.path must name a folder written by",
        "empty": "has neither .parquet files nor",
        "junk.parquet": r"junk\.parquet",
        "junk.txt": r"is not a \.parquet file",
        "cut": "cut",
        "single": "contains 1 image; a data set needs at least two",
    }.items():
        with pytest.raises(UserError, match=message):
            opened("datasets", tmp_path / name, 8, 3)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"needs the package datasets: pip install -e '\.\[datasets\]'"):
        opened("datasets", tmp_path / "single", 8, 3)
