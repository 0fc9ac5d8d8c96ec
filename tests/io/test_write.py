"""Writing: a whole file or the old one, with the permissions of the umask; what the disk refuses is a CannotWrite."""

from __future__ import annotations

import errno
import json
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orthogan.errors import CannotWrite, UserError
from orthogan.io.write import append_json, check_writable, replacing, write_bytes, write_tensors, write_text

SIZE = 5000
WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: write_bytes(path, b"x" * SIZE),
    "text": lambda path: write_text(path, "ü" * SIZE),
    "tensors": lambda path: write_tensors(path, {"w": torch.arange(SIZE)}, {"a": "b"}),
    "lines": lambda path: append_json(path, [{"a": "x" * SIZE}]),
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@every_writer
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path: Path, write: Callable[[Path], object], mask: int) -> None:
    before = os.umask(mask)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    write_bytes(tmp_path / "new" / "a", b"1\n2")
    write_text(tmp_path / "b", "ü\n")
    write_tensors(tmp_path / "c", {"w": torch.arange(4).view(2, 2).T}, {"k": "v"})
    assert (tmp_path / "new" / "a").read_bytes() == b"1\n2"
    assert (tmp_path / "b").read_bytes() == "ü\n".encode()
    assert torch.equal(load_file(tmp_path / "c")["w"], torch.tensor([[0, 2], [1, 3]]))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "c", "new"]


@every_writer
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, write: Callable[[Path], object]) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old\n")
    with limited(SIZE // 2), pytest.raises(CannotWrite, match=rf"cannot write {file}: File too large"):
        write(file)
    assert file.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "owner"),
        (errno.EIO, "choose another folder"),
    ],
)
def test_each_reason_comes_with_what_to_do(
    tmp_path: Path, number: int, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("orthogan.io.write.os.fsync", refused)
    for name, write in WRITERS.items():
        with pytest.raises(CannotWrite, match=rf"{tmp_path / name}: {os.strerror(number)}; .*{cure}"):
            write(tmp_path / name)
        assert not (tmp_path / name).exists() or (tmp_path / name).read_bytes() == b""


def folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


IN_THE_WAY: dict[str, Callable[[Path], Path]] = {
    "a folder": lambda path: (folder(path), path)[1],
    "a pipe": lambda path: (os.mkfifo(path), path)[1],
    "a device": lambda path: Path("/dev/null"),
    "a file instead of a parent": lambda path: (path.touch(), path / "file")[1],
    "a long name": lambda path: path.with_name("ä" * 200),
    "a NUL": lambda path: path.with_name("a\0b"),
}


@every_writer
@pytest.mark.parametrize("obstacle", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_cannot_be_a_file_is_refused_by_name(
    tmp_path: Path, write: Callable[[Path], object], obstacle: Callable[[Path], Path]
) -> None:
    path = obstacle(tmp_path / "place")
    with pytest.raises(UserError, match="cannot write") as caught:
        write(path)
    assert "\0" not in str(caught.value)
    assert not list(tmp_path.glob(".*"))
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize("obstacle", [name for name in IN_THE_WAY if name != "a folder"])
def test_a_place_that_cannot_be_written_is_known_before(tmp_path: Path, obstacle: str) -> None:
    with pytest.raises(CannotWrite, match="cannot write"):
        check_writable(IN_THE_WAY[obstacle](tmp_path / "place"))
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["new.png", "old.png", "folder", "new/folders/picture.png", "link.png"])
def test_a_place_that_can_be_written_stays_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / "old.png").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere")
    check_writable(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link.png", "old.png"]
    assert (tmp_path / "old.png").read_text() == "old"


def test_a_folder_without_permission_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("os.mkdir", refused)  # root may write anywhere
    with pytest.raises(CannotWrite, match=r"new/a\.png: Permission denied; check the owner"):
        check_writable(tmp_path / "new" / "a.png")


@pytest.mark.parametrize("name", ["/dev/null/a.png", "/dev/null/a/b.png", "file/a.png"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name
    place = "/dev/null" if name.startswith("/dev") else tmp_path / "file"
    with pytest.raises(CannotWrite, match=rf"cannot write {path}: {place} is not a folder; choose another folder"):
        write_text(path, "text")


@pytest.mark.parametrize("write", list(WRITERS.values())[:3], ids=list(WRITERS)[:3])
@pytest.mark.parametrize("leftover", ["folder", "file", "link"])
def test_what_a_killed_writer_left_is_swept(tmp_path: Path, write: Callable[[Path], object], leftover: str) -> None:
    scratch = tmp_path / ".file.writing"
    if leftover == "folder":
        scratch.mkdir()
        (scratch / ".tmpXYZ").write_text("half")
        (scratch / "file").mkdir()
    elif leftover == "file":
        scratch.write_text("half")
    else:
        scratch.symlink_to(tmp_path)
    write(tmp_path / "file")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_names_of_any_length_that_the_disk_takes_can_be_written(tmp_path: Path) -> None:
    for length in (1, 200, 239, 240, 241, 255):
        write_bytes(tmp_path / ("n" * length), b"x")
    assert len(list(tmp_path.iterdir())) == 6


def test_writers_of_one_file_wait_for_each_other(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_bytes(file, b"0" * 100_000)
    failed: list[BaseException] = []

    def work(digit: bytes) -> None:
        try:
            for _ in range(30):
                write_bytes(file, digit * 100_000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(digit,)) for digit in (b"1", b"2", b"3")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        read = file.read_bytes()
        assert len(read) == 100_000
        assert len(set(read)) == 1
    assert failed == []
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_vanishes_and_comes_back_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer removes the temporary folder, and makes it again, between two looks at it."""
    scratch, answers = tmp_path / ".file.writing", [False]
    scratch.mkdir()
    real = Path.is_dir

    def is_dir(path: Path) -> bool:
        return answers.pop() if path == scratch and answers else real(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    write_bytes(tmp_path / "file", b"new")
    assert answers == []
    assert (tmp_path / "file").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_an_interrupted_writer_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with replacing(tmp_path / "file") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_line_after_one_that_was_cut_short_stays_whole(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text('{"a": 1}\n{"a": ')
    append_json(file, [{"a": 2}, {"a": 3}])
    lines = file.read_text().splitlines()
    assert [json.loads(line)["a"] for line in (lines[0], *lines[2:])] == [1, 2, 3]


def test_tensors_that_share_memory_are_written_whole(tmp_path: Path) -> None:
    base = torch.arange(6.0).view(2, 3)
    write_tensors(tmp_path / "a", {"base": base, "same": base, "turned": base.T, "part": base[1:]})
    found = load_file(tmp_path / "a")
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        "base": [[0, 1, 2], [3, 4, 5]],
        "same": [[0, 1, 2], [3, 4, 5]],
        "turned": [[0, 3], [1, 4], [2, 5]],
        "part": [[3, 4, 5]],
    }
