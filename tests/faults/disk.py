"""No space, no permission: each command ends with code 2, keeps what it had, and succeeds once there is space."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults import contents
from tests.faults.child import Child, limit_file
from tests.faults.damage import MODEL, SHORT
from tests.faults.findings import Findings
from tests.faults.runs import PATIENCE, SETTINGS

PLAIN = SETTINGS["plain"]


def full(index: int, seed: int, out: Path) -> Findings:
    """A file-size limit, a small disk of its own, or a disk that turns read-only (both need root), in turn."""
    draw = random.Random(seed)
    kinds = (_file_limit, _small_disk, _read_only_soon, _commands) if can_mount() else (_file_limit,)
    folder = out / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return kinds[index % len(kinds)](draw, folder, out)


def can_mount() -> bool:
    """Whether a small disk can be mounted here."""
    return os.geteuid() == 0 and shutil.which("unshare") is not None and _mountable()


def _file_limit(draw: random.Random, folder: Path, out: Path) -> Findings:
    size = int(10 ** draw.uniform(2, 5.5))
    found, what = Findings(tried=1), f"no file above {size} bytes"
    _ends(PLAIN.finish(folder, prepare=limit_file(size)), what, found)
    return _with_space(folder, what, found, out)


def _small_disk(draw: random.Random, folder: Path, out: Path) -> Findings:
    size = draw.randrange(4, 400)
    found, what = Findings(tried=1), f"a disk of {size} KiB"
    with _disk(folder / "disk", f"size={size}k") as disk:
        (disk / "run").mkdir()
        (folder / "run").symlink_to(disk / "run")
        _ends(PLAIN.finish(folder), what, found)
        _mount("-o", "remount,size=64m", str(disk))
        return _with_space(folder, what, found, out)


def _read_only_soon(draw: random.Random, folder: Path, out: Path) -> Findings:
    found, what = Findings(tried=1), "a disk that turns read-only"
    with _disk(folder / "disk", "size=64m") as disk:
        (disk / "run").mkdir()
        (folder / "run").symlink_to(disk / "run")
        (child,) = PLAIN.start(folder)
        end = time.monotonic() + draw.uniform(0, 3)
        while time.monotonic() < end and not child.ended():
            time.sleep(0.01)
        while not child.ended():  # a disk with a file open for writing cannot turn read-only: try again
            if _mount("-o", "remount,ro", str(disk), check=False) == 0:
                break
            time.sleep(0.001)
        child.wait(PATIENCE)
        _ends([child], what, found, tidy=False)
        _mount("-o", "remount,rw", str(disk))
        return _with_space(folder, what, found, out)


def _commands(draw: random.Random, folder: Path, out: Path) -> Findings:
    """The other commands that write, onto a disk that is read-only or full."""
    reference, found = SHORT.reference(out), Findings()
    with _disk(folder / "disk", "size=2m") as disk:
        shutil.copytree(reference, disk / "run", symlinks=True)
        read_only = draw.random() < 0.5
        if read_only:
            _mount("-o", "remount,ro", str(disk))
        else:
            with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(1 << 10))
        what = "a read-only disk" if read_only else "a full disk"
        drawn = ["--device", "cpu"]
        for words in (
            ["sample", str(MODEL), "--seeds", "0-3", "--out", f"{disk}/s.png", *drawn],
            ["sample", str(MODEL), "--seeds", "0-3", "--out", f"{disk}/seeds", *drawn],
            ["traverse", str(MODEL), "--steps", "3", "--dims", "0-1", "--out", f"{disk}/t.html", *drawn],
            ["discover", str(MODEL), "--components", "2", "--out", f"{disk}/d.safetensors", *drawn],
            ["spectrum", str(MODEL), "--plot", f"{disk}/p.png"],
            ["compare", f"{disk}/run", "--out", f"{disk}/comparison"],
            ["compare", f"{disk}/run", "--out", f"{folder}/comparison"],
            ["evaluate", f"{disk}/run", "--samples", "16", "--reference-samples", "16", *drawn],
            ["study", "opt", "--out", f"{disk}/studies", "--redo", "nope"],
        ):
            found.tried += 1
            child = Child(words, folder, output=f"{words[0]}.txt")
            child.wait(PATIENCE)
            found.ended(child, f"{what}, {words[0]}", (0, 2))
            child.output.unlink()
        if left := [name for name in contents.leftovers(disk) if not name.startswith("run/")]:
            found.add("other", f"{what}: left behind: {left}", len(left))
    return found


def _ends(children: list[Child], what: str, found: Findings, *, tidy: bool = True) -> None:
    """Code 0 or 2; nothing half-written keeps the space that is lacking."""
    for child in children:
        found.ended(child, what, (0, 2))
        run = child.output.parent / "run"
        if tidy and (left := contents.leftovers(run)):
            found.add("other", f"{what}: left behind: {left}", len(left))


def _with_space(folder: Path, what: str, found: Findings, out: Path) -> Findings:
    """The same command, now with space: it ends, and the run equals the uninterrupted one.

    Pictures and TensorBoard points that there was no space for are not made later; the run said so.
    """
    (child,) = PLAIN.finish(folder)
    if found.ended(child, f"{what}, then with space", (0,)):
        compared = Findings()
        contents.compare(folder / "run", PLAIN.reference(out), PLAIN.steps, compared, board=False, shown=False)
        found.counts += compared.counts
        found.problems += [f"{what}: {problem}" for problem in compared.problems]
    return found


@contextmanager
def _disk(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*words: str, check: bool = True) -> int:
    return subprocess.run(["mount", *words], check=check, capture_output=True).returncode


def _mountable() -> bool:
    return (
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/tmp"], capture_output=True).returncode == 0
    )
