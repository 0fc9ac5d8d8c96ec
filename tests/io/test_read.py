"""Reading what anyone may have written: whatever it is, the result is its content or a UserError that names it."""

from __future__ import annotations

import errno
import gzip
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from orthogan.errors import UserError
from orthogan.io.read import (
    cache_folder,
    check_regular,
    exists,
    in_home,
    open_regular,
    parse_json,
    parsing,
    printable,
    read_json,
    read_packed,
    read_regular,
    user_path,
)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


NOT_REGULAR: dict[str, tuple[Callable[[Path], None], str]] = {
    "folder": (Path.mkdir, "is a folder, not a regular file"),
    "named pipe": (os.mkfifo, "is a named pipe, not a regular file"),
    "socket": (bound_socket, "is a socket, not a regular file"),
    "endless device": (link("/dev/zero"), "is a device, not a regular file"),
    "waiting device": (link("/dev/random"), "is a device, not a regular file"),
    "terminal": (link("/dev/tty"), "is a device, not a regular file"),
    "link to nowhere": (link("nowhere"), "no such file"),
    "link to itself": (link("x.png"), "cannot be read"),
    "missing": (lambda path: None, "no such file"),
}


@pytest.mark.parametrize("read", [read_regular, open_regular, check_regular])
@pytest.mark.parametrize("kind", NOT_REGULAR)
def test_only_regular_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, read: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    make, message = NOT_REGULAR[kind]
    make(Path("x.png"))
    with pytest.raises(UserError, match=rf"^x\.png: .*{message}"):
        read(Path("x.png"))


@pytest.mark.parametrize("name", ["a" * 256, "/".join(["a" * 200] * 30), "nul\0", "file.txt/below"])
@pytest.mark.parametrize("read", [read_regular, open_regular, check_regular])
def test_impossible_names_are_the_users_error(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / name)


def test_a_file_at_the_limit_is_read_and_one_above_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(200_000))
    assert read_regular(path, 200_000) == bytes(200_000)
    with pytest.raises(UserError, match="x: is larger than 199999 bytes"):
        read_regular(path, 199_999)
    os.truncate(path, 1 << 40)  # takes no space on the disk
    with pytest.raises(UserError, match="is larger than 512 MiB"):
        read_regular(path)


def test_an_empty_file_is_empty(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    assert read_regular(tmp_path / "x", 0) == b""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_a_file_that_says_it_is_empty_is_read_up_to_the_limit() -> None:
    assert b"Name:" in read_regular("/proc/self/status")
    with pytest.raises(UserError, match="is larger than 10 bytes"):
        read_regular("/proc/self/status", 10)


@pytest.mark.parametrize(
    "text",
    ["", "{", "nonsense", "[" * 200_000, '{"a":' * 200_000, "1" * 5000, b"\xff\xfe\xfa", b'"\xe9"', "[1,]"],
    ids=["empty", "cut", "words", "deep list", "deep mapping", "long integer", "not text", "latin-1", "comma"],
)
def test_what_is_not_json_is_the_users_error(tmp_path: Path, text: str | bytes) -> None:
    with pytest.raises(UserError, match=r"^set\.json: is not valid JSON \("):
        parse_json(text, "set.json")
    (tmp_path / "set.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=r"set\.json: is not valid JSON \("):
        read_json(tmp_path / "set.json")


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": [1, null]}')
    assert read_json(tmp_path / "x.json") == {"a": [1, None]}


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("photo 1.png", "photo 1.png"),
        ("déjà vu 写真.png", "déjà vu 写真.png"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("line\nbreak\r", r"line\nbreak\r"),
        ("\x9b31m", r"\x9b31m"),
        ("gpj\u202egnp", r"gpj\u202egnp"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
    ],
)
def test_names_are_escaped_for_the_terminal(name: str, safe: str) -> None:
    assert printable(name) == safe


def test_the_home_folder_of_nobody() -> None:
    with pytest.raises(UserError, match="~no-such-user/x: no such user"):
        user_path("~no-such-user/x")
    assert user_path("~/x") == Path.home() / "x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("~", "/h"), ("~/a b", "/h/a b"), ("~50 faces", "~50 faces"), ("a~/b", "a~/b"), ("~root/x", "~root/x"), ("", "")],
)
def test_only_ones_own_home_folder_is_expanded(text: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/h")
    assert in_home(text) == expected


def test_the_cache_of_a_user_without_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "ORTHOGAN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)  # a container that is started with the number of a user
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = cache_folder()
    assert place.parent == tmp_path
    place.mkdir()
    assert cache_folder() == place
    other = os.getuid() + 1
    monkeypatch.setattr("os.getuid", lambda: other)  # somebody else has made it
    place.rename(tmp_path / f"orthogan-{other}")
    with pytest.raises(UserError, match="belongs to another user; set ORTHOGAN_CACHE"):
        cache_folder()
    monkeypatch.setenv("ORTHOGAN_CACHE", "here")
    assert cache_folder() == Path("here")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "no"), "x.h5: permission denied; check"),
        (OSError(errno.EIO, "Input/output error"), r"x.h5: cannot be read \(Input/output error\)"),
        (OSError("signature not found"), r"x.h5: is damaged, or is not an HDF5 file \(signature not found\); copy"),
        (ZeroDivisionError(), r"x.h5: is damaged, or is not an HDF5 file \(ZeroDivisionError\); copy"),
        (ValueError("first\nsecond"), r"x.h5: .*\(first\); copy"),
        (UserError("ours"), "^ours$"),
    ],
)
def test_what_a_parser_raises_is_the_users_error(error: Exception, message: str) -> None:
    with pytest.raises(UserError, match=message), parsing("x.h5", "an HDF5 file"):
        raise error


def test_what_a_packed_file_declares_bounds_what_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"\4" + b"abcd" + bytes(1 << 24)))
    assert read_packed(path, 1, lambda head: 1 + head[0]) == b"\4abcd\0"  # one byte more, which the caller refuses
    with pytest.raises(UserError, match="claims to hold 1,024 MiB; at most 512 MiB are supported"):
        read_packed(path, 1, lambda head: 1 << 30)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="is damaged, or is not a complete file"):
        read_packed(path, 1, lambda head: 1 << 20)


def test_whether_something_is_there(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    os.mkfifo(tmp_path / "p")
    assert [exists(tmp_path / name, "file") for name in ("f", "p", "missing", "f/below", ".")] == [True] + [False] * 4
    assert [exists(tmp_path / name, "folder") for name in ("f", ".", "missing")] == [False, True, False]
    for name in ("a" * 256, "nul\0"):
        with pytest.raises(UserError, match="cannot be read"):
            exists(tmp_path / name, "file")
