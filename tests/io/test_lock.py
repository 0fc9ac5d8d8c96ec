"""The lock of a folder: one process at a time, however the one before has ended."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orthogan.errors import CannotWrite, UserError
from orthogan.io.lock import locked


def holder(folder: Path) -> int:
    """A process that holds the lock of ``folder`` until it is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(folder, ""):
            os.write(writer, b"x")
            time.sleep(100)
        os._exit(1)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)
    return child


def test_a_second_process_is_refused_with_the_number_of_the_first(tmp_path: Path) -> None:
    child = holder(tmp_path / "run")
    try:
        with (
            pytest.raises(UserError, match=rf"process {child} on .* or choose another"),
            locked(tmp_path / "run", "choose another"),
        ):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert (tmp_path / "run" / ".lock").exists()
    with (
        locked(tmp_path / "run", ""),
        pytest.raises(UserError, match=f"process {os.getpid()}"),
        locked(tmp_path / "run", ""),
    ):
        pass
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with locked(folder, ""):
        child = os.fork()
        if child == 0:  # a reader that outlives its parent
            time.sleep(100)
            os._exit(0)
        (folder / "file").touch()
    try:
        with locked(folder, ""):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_folder_that_stays_empty_is_not_left(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b", ""):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "b", ""):
        (tmp_path / "a" / "file").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def link(path: Path) -> None:
    (path.parent / "mine").write_text("precious")
    path.symlink_to(path.parent / "mine")


@pytest.mark.parametrize(
    "obstacle", [Path.mkdir, link, lambda path: path.symlink_to(path)], ids=["folder", "link", "loop"]
)
def test_what_cannot_be_a_lock_is_named(tmp_path: Path, obstacle: Callable[[Path], None]) -> None:
    obstacle(tmp_path / ".lock")
    with pytest.raises(CannotWrite, match=r"\.lock"), locked(tmp_path, ""):
        pass
    assert not (tmp_path / "mine").exists() or (tmp_path / "mine").read_text() == "precious"
