from __future__ import annotations

import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.multiprocessing as mp

from orthogan.data.formats.stores import FileStore, FolderStore, ZipStore, is_image_name, open_store
from orthogan.errors import UserError

CONTENT = {"a.txt": b"1", "deep/er/b.png": b"22", "deep/c.jpg": b"333"}


@pytest.fixture(params=["folder", "zip"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FileStore:
    if request.param == "zip":
        with zipfile.ZipFile(tmp_path / "set.ZIP", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("empty")
            for name, data in CONTENT.items():
                archive.writestr(name, data)
        return open_store(tmp_path / "set.ZIP")
    (tmp_path / "empty").mkdir()
    for name, data in CONTENT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return open_store(tmp_path)


def test_entries_and_content(store: FileStore) -> None:
    assert store.entries() == [(name, len(data)) for name, data in sorted(CONTENT.items())]
    assert {name: store.read(name) for name in CONTENT} == CONTENT


def _read_in_child(store: FileStore, queue: mp.Queue[bytes]) -> None:
    queue.put(store.read("deep/c.jpg"))


def test_stores_can_be_read_in_a_forked_process(store: FileStore) -> None:
    store.entries()  # opens the archive here first
    context = mp.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(store, queue))
    child.start()
    assert queue.get(timeout=300) == b"333"
    child.join()
    assert store.read("a.txt") == b"1"


def test_stores_can_be_read_by_threads_and_pickled(store: FileStore) -> None:
    store.entries()
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(store.read, ["deep/er/b.png"] * 200)) == {b"22"}
    assert pickle.loads(pickle.dumps(store)).read("a.txt") == b"1"


def test_folder_loops_and_dead_links(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.png").write_bytes(b"1")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere.png")
    assert FolderStore(tmp_path).entries() == [("dead.png", 0), ("sub/x.png", 1)]


def test_linked_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_bytes(b"1")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cats").symlink_to(tmp_path / "elsewhere")
    assert FolderStore(tmp_path / "set").entries() == [("cats/x.png", 1)]


@pytest.mark.skipif(os.getuid() == 0, reason="nothing is forbidden to the superuser")
def test_forbidden_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir(mode=0)
    with pytest.raises(UserError, match="secret: cannot be listed"):
        FolderStore(tmp_path).entries()


def test_image_names() -> None:
    for name in ("a.png", "x/y.JPEG", "z.webp", "ä/b c.TIF"):
        assert is_image_name(name)
    for name in ("a.txt", "png", ".hidden.png", ".git/a.png", "__MACOSX/._a.png", "__MACOSX/a.png", "a.png.bak"):
        assert not is_image_name(name)


def test_member_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orthogan.data.formats.stores.LARGEST_IMAGE", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(3 << 20))
    with pytest.raises(UserError, match="unpacks to 3 MiB"):
        ZipStore(tmp_path / "bomb.zip").read("bomb.png")


def test_paths_that_are_no_store(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing: no such folder or zip file; check data\.path"):
        open_store(tmp_path / "missing")
    (tmp_path / "one.png").write_bytes(b"1")
    with pytest.raises(UserError, match=r"one\.png: this is one image"):
        open_store(tmp_path / "one.png")
    (tmp_path / "set.tar").write_bytes(b"1")
    with pytest.raises(UserError, match=r"set\.tar: this is neither"):
        open_store(tmp_path / "set.tar")
    (tmp_path / "bad.zip").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"bad\.zip: is damaged, or is not a zip archive"):
        open_store(tmp_path / "bad.zip").entries()


def test_a_folder_has_its_own_name_and_not_that_of_a_link_to_it(tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    for place, names in ((tmp_path / "set", ("0-link", "z-link")), (tmp_path / "again", ("z-link", "0-link"))):
        for folder in (place / "cats", place / "deep" / "inside", other):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "1.png").touch()
        for name in names:  # in either order, because the order of a folder is that of its file system
            (place / name).symlink_to("cats")
            (place / f"{name}-deep").symlink_to("deep/inside")
            (place / f"{name}-out").symlink_to(other)
        found = [entry.name for entry in open_store(place).entries()]
        assert found == ["0-link-out/1.png", "cats/1.png", "deep/inside/1.png"]
