from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from orthogan.config.schema import Config
from orthogan.data import Batches, ImageSource
from orthogan.data.formats.image_files import FileSource
from orthogan.data.views import Part
from orthogan.errors import UserError
from orthogan.training.gan.draws import check_shares
from tests.fixtures.sets import greys, opened, solid

Form = tuple[int, int] | tuple[int, int, Literal["skip", "error"], float]
FORM = (4, 1)
STREAMED = 0  # a memory limit that every set exceeds


def lenient(limit: float = 0.5, policy: Literal["skip", "error"] = "skip") -> Form:
    return 4, 1, policy, limit


def first_pixels(source: ImageSource) -> list[int]:
    return source.read(np.arange(len(source)))[0][:, 0, 0, 0].tolist()


def classes_of(source: ImageSource) -> list[int]:
    return source.read(np.arange(len(source)))[1].tolist()


def class_folders(folder: Path) -> Path:
    for k, name in enumerate(("b/x/1.png", "a/2.png", "c/1.png", "b/0.png", "a/10.png")):
        solid(folder / name, 10 * k)
    return folder


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_flat_folder_in_order_of_names(tmp_path: Path, limit: int) -> None:
    source = opened("folder", greys(tmp_path / "pictures", 12), *FORM, in_memory_limit=limit)
    assert source.in_memory == (limit > 0)
    assert (source.name, source.num_classes, source.class_names) == ("pictures", 0, [])
    assert first_pixels(source) == list(range(12))
    images, labels = source.read(np.array([7, 2, 7]))
    assert images.shape == (3, 1, 4, 4)
    assert images[:, 0, 0, 0].tolist() == [7, 2, 7]
    assert labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
@pytest.mark.parametrize("packed", [False, True])
def test_classes_are_the_first_sub_folders(tmp_path: Path, limit: int, packed: bool) -> None:
    path = class_folders(tmp_path / "set" / "train")
    if packed:
        # Everything lies below set/train in the archive: what all files share is no class.
        path = Path(shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path, "set"))
    source = opened("folder", path, *FORM, in_memory_limit=limit)
    assert source.class_names == ["a", "b", "c"]
    assert source.num_classes == 3
    assert list(zip(first_pixels(source), classes_of(source), strict=True)) == [
        (40, 0),
        (10, 0),
        (30, 1),
        (0, 1),
        (20, 2),
    ]


def test_pictures_beside_folders_have_no_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    solid(class_folders(tmp_path) / "stray.png", 5)
    assert opened("folder", tmp_path, *FORM).num_classes == 0
    assert "stray.png" in caplog.text


def test_one_sub_folder_is_no_class(tmp_path: Path) -> None:
    greys(tmp_path / "only", 3)
    assert opened("folder", tmp_path, *FORM).num_classes == 0


@pytest.mark.parametrize("packed", [False, True])
def test_dataset_json(tmp_path: Path, packed: bool) -> None:
    folder = class_folders(tmp_path / "set")
    names = ["a/10.png", "a/2.png", "b/0.png", "b/x/1.png", "c/1.png"]
    labels = [2, 0, 0, 3, 2]
    (folder / "dataset.json").write_text(json.dumps({"labels": [list(p) for p in zip(names, labels, strict=True)]}))
    path = Path(shutil.make_archive(str(tmp_path / "set"), "zip", folder)) if packed else folder
    source = opened("folder", path, *FORM)
    # A number that no image has is no class.
    assert classes_of(source) == [1, 0, 0, 2, 1]
    assert source.class_names == ["0", "2", "3"]


@pytest.mark.parametrize("content", ['{"labels": null}', "{}"])
def test_shards_of_an_unlabeled_stylegan_set_are_no_classes(tmp_path: Path, content: str) -> None:
    (class_folders(tmp_path) / "dataset.json").write_text(content)
    source = opened("folder", tmp_path, *FORM)
    assert source.num_classes == 0
    assert "null" in source.why_unlabeled


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([1, 2, 1], [0, 1, 0], ["1", "2"]),
        ([0, 9, 9], [0, 1, 1], ["0", "9"]),
        ([10, 2, 1], [2, 1, 0], ["1", "2", "10"]),
        ([999_999_999, 0, 10**30], [1, 0, 2], ["0", "999999999", "1" + "0" * 30]),
    ],
)
def test_class_numbers_with_gaps(tmp_path: Path, labels: list[int], numbers: list[int], names: list[str]) -> None:
    pairs = [[f"{k:03}.png", label] for k, label in enumerate(labels)]
    (greys(tmp_path, 3) / "dataset.json").write_text(json.dumps({"labels": pairs}))
    source = opened("folder", tmp_path, *FORM)
    assert (classes_of(source), source.class_names) == (numbers, names)


@pytest.mark.parametrize("wrap", ["", "set/", "a/b/", "windows\\", "a/windows\\"])
@pytest.mark.parametrize("packed", [False, True])
def test_folders_around_everything_are_passed_over(tmp_path: Path, packed: bool, wrap: str) -> None:
    names = ["x/0.png", "x/1.png", "y/2.png", "y/3.png"]
    slash = "\\" if wrap.endswith("\\") else "/"
    inside = [wrap + name.replace("/", slash) for name in names]
    files = {name: solid(tmp_path / "p.png", 10 * k).read_bytes() for k, name in enumerate(inside)}

    def written(name: str) -> ImageSource:
        for file, data in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(data)
        if not packed:
            return opened("folder", tmp_path / name, *FORM)
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for file, data in files.items():
                archive.writestr(zipfile.ZipInfo(file), data)
        return opened("folder", tmp_path / f"{name}.zip", *FORM)

    source = written("plain")
    assert (first_pixels(source), classes_of(source)) == ([0, 10, 20, 30], [0, 0, 1, 1])
    assert source.class_names == ["x", "y"]
    table = [[name.replace("/", slash), (3 * k) % 4] for k, name in enumerate(names)]
    files[f"{wrap}dataset.json"] = json.dumps({"labels": table}).encode()
    source = written("labeled")
    assert (first_pixels(source), classes_of(source)) == ([0, 10, 20, 30], [0, 3, 2, 1])
    assert source.num_classes == 4


def test_a_dataset_json_that_is_not_for_all_images_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (class_folders(tmp_path) / "b" / "dataset.json").write_text('{"labels": []}')
    assert opened("folder", tmp_path, *FORM).class_names == ["a", "b", "c"]
    assert "b/dataset.json is ignored" in caplog.text


TABLES = {
    "no json": ("[", "is not valid JSON"),
    "no mapping": ("[1]", "expected"),
    "a number": ('{"labels": 7}', "expected"),
    "no pairs": ('{"labels": [["000.png"]]}', "expected"),
    "a picture left out": ('{"labels": [["000.png", 0]]}', r"no label for 2 of 3 images, such as 001\.png"),
    "negative": ('{"labels": [["000.png", 0], ["001.png", -1], ["002.png", 1]]}', r"label of 001\.png is -1"),
    "one-hot": ('{"labels": [["000.png", 0], ["001.png", [0, 1]], ["002.png", 1]]}', r"label of 001\.png is \[0, 1\]"),
    "text": ('{"labels": [["000.png", 0], ["001.png", "1"], ["002.png", 1]]}', r"label of 001\.png is '1'"),
    "twice": (
        '{"labels": [["000.png", 0], ["001.png", 1], ["002.png", 1], ["./000.png", 1]]}',
        r"000\.png has two labels, 0 and 1",
    ),
    "deep": ('{"labels": ' + "[" * 100_000, "nested too deeply"),
    "long number": ('{"labels": [["000.png", ' + "9" * 5000 + "]]}", "is not valid JSON"),
    "link to nowhere": (None, "no such file"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_labels_that_cannot_be_used_matter_only_where_they_are_asked_for(tmp_path: Path, kind: str) -> None:
    content, message = TABLES[kind]
    greys(tmp_path, 3)
    if content is None:
        (tmp_path / "dataset.json").symlink_to("nowhere")
    else:
        (tmp_path / "dataset.json").write_text(content)
    source = opened("folder", tmp_path, *FORM)
    assert (first_pixels(source), source.num_classes) == ([0, 1, 2], 0)
    assert re.search(rf"dataset\.json: .*{message}", source.why_unlabeled)
    settings = Config.model_validate(
        {"data": {"source": "folder", "path": str(tmp_path), "labels": True}, "training": {"batch_size": 1}}
    )
    for view in (source, Part(source, np.arange(2), "part")):
        with pytest.raises(UserError, match=rf"data\.labels: .* has 0 classes; .*{message}"):
            check_shares(settings, view, 1)


def test_the_same_label_twice_and_other_cases_of_names_are_fine(tmp_path: Path) -> None:
    solid(tmp_path / "A.PNG", 1)
    solid(tmp_path / "é.png", 2)
    pairs = [["a.png", 0], ["a.png", 0], ["e\u0301.png", 1]]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": pairs}))
    assert classes_of(opened("folder", tmp_path, *FORM)) == [0, 1]


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "VAL", "test"), ("train", "valid")])
def test_parts_beside_each_other_are_no_classes(
    tmp_path: Path, names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    for k, name in enumerate(names):
        solid(tmp_path / name / "0" / "a.png", k)
        solid(tmp_path / name / "1" / "b.png", k)
    source = opened("folder", tmp_path, *FORM)
    assert source.num_classes == 0
    assert "look like the splits of a data set" in source.why_unlabeled
    assert names[0] in caplog.text
    assert opened("folder", tmp_path / names[0], *FORM).class_names == ["0", "1"]


def test_classes_that_differ_only_in_case_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for k, name in enumerate(("Cat", "cat", "dog")):
        solid(tmp_path / name / "a.png", k)
    assert opened("folder", tmp_path, *FORM).class_names == ["Cat", "cat", "dog"]
    assert "differ only in case or encoding: Cat, cat" in caplog.text


def test_other_files_are_ignored(tmp_path: Path) -> None:
    greys(tmp_path, 3)
    solid(tmp_path / ".thumbnails" / "t.png", 99)
    solid(tmp_path / "__MACOSX" / "._000.png", 99)
    (tmp_path / "README.txt").write_text("not a picture")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert first_pixels(opened("folder", tmp_path, *FORM)) == [0, 1, 2]


def test_mixed_sizes_and_modes(tmp_path: Path) -> None:
    sizes = {"L": (5, 9), "RGB": (40, 40), "RGBA": (7, 3), "CMYK": (100, 20), "P": (4, 4), "1": (8, 8), "LA": (9, 9)}
    for mode, size in sizes.items():
        ending = "tif" if mode == "CMYK" else "png"
        Image.new("RGB", size, (255, 255, 255)).convert("L" if mode == "LA" else "RGB").convert(mode).save(
            tmp_path / f"{mode}.{ending}"
        )
    source = opened("folder", tmp_path, 8, 3)
    assert len(source) == 7
    assert source.read(np.arange(7))[0].min() == 255


def damage(folder: Path) -> list[str]:
    """Make three of the files unreadable, in three ways."""
    (folder / "003.png").write_bytes(b"")
    (folder / "004.png").write_bytes((folder / "004.png").read_bytes()[:40])
    (folder / "009.png").write_text("words")
    return ["003.png", "004.png", "009.png"]


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_bad_files_are_skipped_and_named_once(tmp_path: Path, limit: int, caplog: pytest.LogCaptureFixture) -> None:
    bad = damage(greys(tmp_path, 10))
    with caplog.at_level(logging.WARNING, "orthogan.data"):
        source = opened("folder", tmp_path, *lenient(), in_memory_limit=limit)
        values = first_pixels(source)
        first_pixels(source)
    # In memory they are left out; in a stream the next readable one stands in for each, round the end.
    assert values == ([0, 1, 2, 5, 5, 5, 6, 7, 8, 0] if limit == STREAMED else [0, 1, 2, 5, 6, 7, 8])
    messages = [record.getMessage() for record in caplog.records]
    assert [sum(name in message for message in messages) for name in bad] == [1, 1, 1]
    assert any("003.png: the file is empty" in message for message in messages)


def test_images_of_other_formats_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("IMG_1.HEIC", "IMG_2.heic", "DSC.NEF", "notes.txt", "._IMG_1.HEIC"):
        (tmp_path / name).write_bytes(b"words")
    with pytest.raises(UserError, match=r"none of its 5 files can be read; it has .*: \.heic \(2\), \.nef \(1\); save"):
        opened("folder", tmp_path, *FORM)
    greys(tmp_path, 3)
    with caplog.at_level(logging.WARNING, "orthogan.data"):
        assert len(opened("folder", tmp_path, *FORM)) == 3
    assert [record.getMessage() for record in caplog.records if ".heic (2), .nef (1); save" in record.getMessage()]


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_too_many_bad_files_stop_with_their_names(tmp_path: Path, limit: int) -> None:
    bad = damage(greys(tmp_path, 10))
    with pytest.raises(UserError, match=r"more than data\.bad_limit = 0\.2 allows") as caught:
        first_pixels(opened("folder", tmp_path, *lenient(0.2), in_memory_limit=limit))
    assert all(name in str(caught.value) for name in bad)


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_policy_error_stops_at_the_first(tmp_path: Path, limit: int) -> None:
    damage(greys(tmp_path, 10))
    with pytest.raises(UserError, match=r"003\.png cannot be read: the file is empty"):
        first_pixels(opened("folder", tmp_path, *lenient(policy="error"), in_memory_limit=limit))


def test_limit_is_one_per_cent_by_default(tmp_path: Path) -> None:
    greys(tmp_path, 200)
    for name in ("000.png", "001.png"):
        (tmp_path / name).write_bytes(b"")
    assert len(opened("folder", tmp_path, *FORM)) == 198
    (tmp_path / "002.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"at least 3 of 200 files"):
        opened("folder", tmp_path, *FORM)


@pytest.mark.parametrize("packed", [False, True])
def test_workers_name_bad_files_and_agree_with_one_process(
    tmp_path: Path, packed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = greys(tmp_path / "set", 20)
    bad = damage(folder)
    path = Path(shutil.make_archive(str(tmp_path / "set"), "zip", folder)) if packed else folder

    def batches(workers: int) -> Batches:
        source = opened("folder", path, *lenient(), in_memory_limit=STREAMED)
        return Batches(source, batch_size=5, seed=0, workers=workers)

    with caplog.at_level(logging.WARNING, "orthogan.data"), batches(2) as parallel, batches(0) as alone:
        together = [parallel.at(position)[0] for position in range(0, 40, 5)]
        messages = [record.getMessage() for record in caplog.records]
        assert [sum(name in message for message in messages) for name in bad] == [1, 1, 1]
        for position, images in zip(range(0, 40, 5), together, strict=True):
            assert torch.equal(alone.at(position)[0], images)


@pytest.mark.parametrize("policy", ["skip", "error"])
def test_worker_stops_with_the_name_of_the_file(tmp_path: Path, policy: Literal["skip", "error"]) -> None:
    damage(greys(tmp_path, 10))
    source = opened("folder", tmp_path, *lenient(0.1, policy), in_memory_limit=STREAMED)
    batches = Batches(source, batch_size=10, seed=0, workers=1)
    with batches, pytest.raises(UserError) as caught:
        batches.at(0)
    assert any(name in str(caught.value) for name in ("003.png", "004.png", "009.png"))
    assert "Traceback" not in str(caught.value)


def test_file_that_vanishes_is_a_bad_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = opened("folder", greys(tmp_path, 10), *lenient(), in_memory_limit=STREAMED)
    (tmp_path / "002.png").unlink()
    assert first_pixels(source)[2] == 3
    assert "002.png: no such file" in caplog.text


def test_only_bad_files(tmp_path: Path) -> None:
    for k in range(4):
        (tmp_path / f"{k}.png").write_bytes(b"")
    with pytest.raises(UserError, match="0 readable images"):
        opened("folder", tmp_path, *lenient(1.0))
    with pytest.raises(UserError, match=r"0\.png"):
        first_pixels(opened("folder", tmp_path, *lenient(1.0), in_memory_limit=STREAMED))


def test_animations_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    greys(tmp_path, 2)
    frames = [Image.new("L", (8, 8), value) for value in (50, 90)]
    frames[0].save(tmp_path / "z.gif", save_all=True, append_images=frames[1:])
    assert first_pixels(opened("folder", tmp_path, *FORM)) == [0, 1, 50]
    assert "1 file has several frames" in caplog.text


def test_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty; put image files"):
        opened("folder", tmp_path, *FORM)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match=r"none of its 1 file has an image extension .*notes\.txt"):
        opened("folder", tmp_path, *FORM)
    solid(tmp_path / "one.png", 1)
    with pytest.raises(UserError, match=r"contains a single image, one\.png"):
        opened("folder", tmp_path, *FORM)


def test_fewer_images_than_a_batch(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="3 images, fewer than a batch of 4"):
        Batches(opened("folder", greys(tmp_path, 3), *FORM), batch_size=4, seed=0)


def test_bad_policy_and_limit(tmp_path: Path) -> None:
    greys(tmp_path, 3)
    with pytest.raises(UserError, match=r"data\.bad_images: must be 'skip' or 'error', not 'ignore'"):
        opened("folder", tmp_path, 4, 1, "ignore")
    with pytest.raises(UserError, match=r"data\.bad_limit: must be from 0 to 1, not 1\.5"):
        opened("folder", tmp_path, *lenient(1.5))


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
@pytest.mark.parametrize("packed", [False, True])
def test_fingerprint_follows_content_and_transform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, packed: bool
) -> None:
    """Bitmaps of one size have files of one size; their times are made equal too."""
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path / "cache"))
    greys(tmp_path / "a", 4, ending=".bmp")
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def print_of(name: str, form: Form = FORM) -> str:
        for file in (tmp_path / name).iterdir():
            os.utime(file, (1e9, 1e9))
        path = tmp_path / name
        if packed:
            path = Path(shutil.make_archive(str(path), "zip", path))
        return opened("folder", path, *form, in_memory_limit=limit).fingerprint()

    before = print_of("a")
    assert print_of("b") == before
    assert print_of("a", (8, 1)) != before
    assert print_of("a", (4, 3)) != before
    solid(tmp_path / "b" / "003.bmp", 77)
    changed = print_of("b")
    assert changed != before
    solid(tmp_path / "b" / "003.bmp", 3)
    assert print_of("b") == before


def test_the_content_of_files_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path / "cache"))
    greys(tmp_path / "a", 3, ending=".bmp")
    source = opened("folder", tmp_path / "a", *FORM, in_memory_limit=STREAMED)
    young = source.fingerprint()
    assert not (tmp_path / "cache").exists()  # files that may still change within the tick of a clock
    clock = time.time_ns()
    monkeypatch.setattr("time.time_ns", lambda: clock + 10**10)
    assert source.fingerprint() == young
    monkeypatch.setattr("orthogan.io.hashing.open_regular", None)  # nothing is opened any more
    assert source.fingerprint() == young
    (kept,) = (tmp_path / "cache").rglob("*.json")
    kept.write_text("[")
    with pytest.raises(TypeError):
        source.fingerprint()


def test_unreadable_files_have_a_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORTHOGAN_CACHE", str(tmp_path / "cache"))
    greys(tmp_path / "a", 3)
    os.mkfifo(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "y.png").symlink_to("nowhere")
    assert len(opened("folder", tmp_path / "a", *lenient(), in_memory_limit=STREAMED).fingerprint()) == 40


@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_what_is_no_file_is_a_bad_file_and_never_waited_for(
    tmp_path: Path, limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    greys(tmp_path, 4)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "endless.png").symlink_to("/dev/zero")
    (tmp_path / "random.png").symlink_to("/dev/random")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "nowhere.png").symlink_to("nothing")
    os.truncate(solid(tmp_path / "sparse.png", 9), 1 << 40)
    source = opened("folder", tmp_path, *lenient(0.7), in_memory_limit=limit)
    assert set(first_pixels(source)) == {0, 1, 2, 3}
    for name in ("pipe", "endless", "random", "loop", "nowhere", "sparse"):
        assert caplog.text.count(f"{name}.png") == 1
    with pytest.raises(UserError, match="cannot be read"):
        first_pixels(opened("folder", tmp_path, *FORM, in_memory_limit=limit))


def test_many_bad_files_are_each_tried_once(tmp_path: Path) -> None:
    for k in range(200):
        (tmp_path / f"{k:03}.png").write_bytes(b"")
    solid(tmp_path / "zz.png", 9)
    source = opened("folder", tmp_path, *lenient(1.0), in_memory_limit=STREAMED)
    assert isinstance(source, FileSource)
    reads: Counter[str] = Counter()
    read = source.store.read
    source.store.read = lambda name: reads.update([name]) or read(name)
    assert first_pixels(source) == [9] * 201
    assert max(reads[f"{k:03}.png"] for k in range(200)) == 1


def test_black_masks_and_lost_classes_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        solid(tmp_path / name / "0.png", 1)
        solid(tmp_path / name / "1.png", 0)
    opened("folder", tmp_path, *FORM)
    assert "every pixel is 0 or 1 of 255" in caplog.text
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "bad.png").write_bytes(b"")
    opened("folder", tmp_path, *lenient())
    assert "the class c has no readable image" in caplog.text


NAMES = ["plain", "with space", "déjà vu 写真", "line\nbreak", "\x1b[2J", os.fsdecode(b"caf\xe9")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [STREAMED, 1 << 30])
def test_names_of_any_bytes(tmp_path: Path, name: str, limit: int, caplog: pytest.LogCaptureFixture) -> None:
    for kind in "xy":
        greys(tmp_path / name / (name + kind), 2)
        (tmp_path / name / (name + kind) / f"{name}.png").write_bytes(b"")
    source = opened("folder", tmp_path / name, *lenient(), in_memory_limit=limit)
    assert set(first_pixels(source)) == {0, 1}
    source.fingerprint()
    for text in (source.name, *source.class_names, *(record.getMessage() for record in caplog.records)):
        text.encode()
        assert text.isprintable()
    assert source.num_classes == 2


def test_images_can_be_indexed_and_iterated(tmp_path: Path) -> None:
    source = opened("folder", class_folders(tmp_path), *FORM)
    image, label = source[-1]
    assert (image.shape, image.dtype, int(image[0, 0, 0]), label) == ((1, 4, 4), np.uint8, 20, 2)
    assert [label for _, label in iter(source)] == [0, 0, 1, 1, 2]
    with pytest.raises(IndexError, match="for 5 images"):
        source[5]
    with pytest.raises(TypeError):
        source["0"]


@pytest.mark.parametrize("path", ["~no-such-user/x", "a" * 300, "x/" * 3000, "nul\0"])
def test_paths_that_cannot_be(path: str) -> None:
    with pytest.raises(UserError):
        opened("folder", path, *FORM)


def test_many_larger_pictures_are_decoded_by_threads_in_order(tmp_path: Path) -> None:
    """Noise does not compress, so these files are above the size from which threads are used."""
    rng = np.random.default_rng(0)
    for k in range(12):
        noise = rng.integers(0, 256, (100, 100, 3), np.uint8)
        noise[40:60, 40:60] = k
        Image.fromarray(noise).save(tmp_path / f"{k:02}.png")
    source = opened("folder", tmp_path, 100, 3)
    assert source.read(np.arange(12))[0][:, 0, 50, 50].tolist() == list(range(12))
