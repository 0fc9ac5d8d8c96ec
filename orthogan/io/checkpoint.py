"""A checkpoint: one folder of safetensors and a ``state.json`` that vouches for them and for itself.

It is written under a temporary name, synced to disk and renamed, so a folder that carries its final name is
whole; its hashes tell a damaged one later. Nothing here knows what is trained.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from orthogan.errors import UserError
from orthogan.io.hashing import json_sha256
from orthogan.io.json_lines import DAMAGE
from orthogan.io.read import read_json, read_regular
from orthogan.io.write import disk_errors, remove, set_aside, sync, write_tensors, write_text

FORMAT = 2  # 1: the same without the hash of state.json
FOLDER = "checkpoints"
BEST = "best"
STATE = "state.json"
SEAL = "sha256"
FLOAT = "__float__"  # {"__float__": "inf"}: JSON has no infinity and no NaN
LARGEST_STATE = 1 << 26  # [bytes]
_NAME = re.compile(r"step-([0-9]+)")
_LEFTOVERS = (".*.writing", ".*.png.*.part")  # the second is of version 0.1
Needed = Callable[[Collection[str]], Collection[str]]
_whole: set[str] = set()  # the folders that this process has written or verified


class Damaged(Exception):
    """A checkpoint folder that is not what was written; the message says which file and why."""


@dataclass(frozen=True)
class Part:
    """One safetensors file: tensors by name, and string metadata."""

    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]


def save(run: Path, step: int, parts: Mapping[str, Part], state: Mapping[str, Any]) -> Path:
    """Write ``run/checkpoints/step-NNNNNNNNN`` atomically and return it.

    Args:
        parts: file stem -> tensors; each becomes ``stem.safetensors``.
        state: JSON-ready scalars, kept in ``state.json`` beside the hashes of the files.

    Raises:
        CannotWrite: nothing of the new checkpoint is left, and the others are as they were.
    """
    final = checkpoint_folder(run, step)
    temporary = final.with_name(f".writing-{final.name}")
    with disk_errors(final, f"delete or move what is at {final.parent}"):
        for leftover in final.parent.glob(".writing-*"):
            remove(leftover)
        temporary.mkdir(parents=True)
        try:
            files = {}
            for stem, part in parts.items():
                path = temporary / f"{stem}.safetensors"
                write_tensors(path, part.tensors, part.metadata)
                files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            record = {"format": FORMAT, "step": step, "files": files, "state": _packed(state)}
            write_text(temporary / STATE, json.dumps({**record, SEAL: json_sha256(record)}, indent=1, allow_nan=False))
            sync(temporary)
            if os.path.realpath(final) in _whole:  # the same step is written again
                remove(final)
            elif final.exists() or final.is_symlink():
                set_aside(final, "it is in the place of a checkpoint")
            temporary.rename(final)
            sync(final.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    _whole.add(os.path.realpath(final))
    return final


def verify(folder: Path, needed: Needed | None = None) -> dict[str, Any]:
    """The ``state`` of a whole checkpoint.

    Args:
        needed: given the names of all files, those whose content is to be checked; of the others the size counts.

    Raises:
        Damaged: a file is missing, short or altered.
        UserError: a file may not be read, or was written by a later version of orthogan.
    """
    try:
        state = _verified(folder, needed)
    except Damaged:
        _whole.discard(os.path.realpath(folder))
        raise
    except PermissionError as error:
        raise UserError(f"{error.filename or folder}: permission denied; check its owner and permissions") from None
    except OSError as error:
        _whole.discard(os.path.realpath(folder))
        raise Damaged(f"{error.filename or folder}: {error.strerror or error}") from None
    if needed is None:
        _whole.add(os.path.realpath(folder))
    return state


def _verified(folder: Path, needed: Needed | None) -> dict[str, Any]:
    path = folder / STATE
    path.stat()  # an OSError says more than a UserError
    try:
        record = read_json(path, LARGEST_STATE)
    except UserError as error:
        if isinstance(error.__cause__, OSError):
            raise error.__cause__ from None
        raise Damaged(str(error)) from None
    if not isinstance(record, dict):
        raise Damaged(f"{path}: holds no record of a checkpoint")
    version = record.get("format")
    sealed = version != 1 or record.keys() != {"format", "step", "files", "state"}
    seal = record.pop(SEAL, None)
    if sealed and seal != json_sha256(record):
        raise Damaged(f"{path}: its content changed since it was written")
    if sealed and version != FORMAT:
        raise UserError(f"{path}: has format {version}, this orthogan reads formats 1 and {FORMAT}; update orthogan")
    try:
        files = {
            str(name): (int(expected["bytes"]), str(expected["sha256"])) for name, expected in record["files"].items()
        }
        state = dict(_unpacked(record["state"]))
        if any(Path(name).name != name for name in files):
            raise ValueError("it names files of other folders")
    except DAMAGE as error:
        raise Damaged(f"{path}: holds no record of a checkpoint ({error!r})") from None
    checked = files if needed is None else needed(files)
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path}: missing")
        if path.stat().st_size != size:
            raise Damaged(f"{path}: {path.stat().st_size} bytes, {size} were written")
        if name in checked and _sha256(path) != digest:
            raise Damaged(f"{path}: its content changed since it was written")
    return state


def verify_file(path: Path) -> bool:
    """Check one file that lies in a checkpoint folder; False for a file elsewhere, which nothing vouches for.

    Raises:
        Damaged: it is not what the checkpoint was written with.
    """
    try:
        expected = read_json(path.parent / STATE, LARGEST_STATE)["files"][path.name]["sha256"]
    except (UserError, *DAMAGE):
        return False
    if _sha256(path) != expected:
        raise Damaged(f"{path}: its content changed since it was written")
    return True


def read(folder: Path, stem: str) -> dict[str, torch.Tensor]:
    """The tensors of ``stem.safetensors``, on the CPU."""
    return load_file(folder / f"{stem}.safetensors")


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder claims to be a checkpoint (``verify`` tells whether it is whole)."""
    return (folder / STATE).is_file()


def steps(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint of a run, oldest first; files and empty folders are none."""
    found = []
    for path in (run / FOLDER).glob("step-*"):
        match = _NAME.fullmatch(path.name)
        if match and path == checkpoint_folder(run, int(match[1])) and path.is_dir() and any(path.iterdir()):
            found.append((int(match[1]), path))
    return sorted(found)


def newest(
    run: Path,
    *,
    aside: bool = False,
    check: Callable[[dict[str, Any]], object] = bool,
    needed: Needed | None = None,
) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of a run and its state; a damaged one is named on stderr and passed over.

    Args:
        aside: rename the damaged ones to ``damaged-step-NNNNNNNNN``, for the process that trains.
        check: raises a KeyError, TypeError or ValueError for a state that is not as it should be.
        needed: as of ``verify``.

    Raises:
        UserError: one may not be read, or was written by a later version of orthogan.
    """
    damaged: list[Path] = []
    whole: tuple[Path, dict[str, Any]] | None = None
    for _, folder in reversed(steps(run)):
        try:
            state = verify(folder, needed)
            check(state)
            whole = folder, state
            break
        except (Damaged, *DAMAGE) as damage:
            if not isinstance(damage, Damaged):
                damage = Damaged(f"{folder / STATE}: {damage!r}")
            print(f"orthogan: passing over a damaged checkpoint: {damage}", file=sys.stderr)
            damaged.append(folder)
    if aside and whole is not None:  # where all are damaged, they stay what the run has
        for folder in damaged:
            set_aside(folder, "it is damaged")
    return whole


def digest(folder: Path) -> str:
    """The hash of ``state.json``, which holds the hashes of all other files. Raises ``UserError``."""
    return hashlib.sha256(read_regular(folder / STATE, LARGEST_STATE)).hexdigest()


def checkpoint_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies, or would."""
    return run / FOLDER / f"step-{step:09d}"


def prune(run: Path, keep: int, spare: Collection[int] = ()) -> None:
    """Delete all checkpoints but the ``keep`` newest, the one that ``best`` points to, and those of steps ``spare``.

    Only those that this process has written or verified count as kept, so that ``keep`` whole ones are left.
    Raises ``CannotWrite``.
    """
    best, kept = best_checkpoint(run), 0
    for step, folder in reversed(steps(run)):
        if kept < keep:
            kept += os.path.realpath(folder) in _whole
        elif step not in spare and folder.resolve() != best:
            doomed = folder.with_name(f".writing-{folder.name}")  # so that an interrupted deletion is no checkpoint
            with disk_errors(folder):
                remove(doomed)
                folder.rename(doomed)
                shutil.rmtree(doomed)
            _whole.discard(os.path.realpath(folder))


def sweep(run: Path) -> None:
    """Delete what killed processes have left half-written in the run folder. Raises ``CannotWrite``."""
    with disk_errors(run):
        for folder, patterns in ((run / FOLDER, (".writing-*",)), (run, _LEFTOVERS)):
            for pattern in patterns:
                for leftover in folder.glob(pattern):
                    remove(leftover)


def best_checkpoint(run: Path) -> Path | None:
    """The folder that ``best`` points to; None where there is none."""
    try:
        return (run / BEST).resolve(strict=True)
    except (OSError, RuntimeError):  # it points nowhere, or to itself
        return None


def mark_best(run: Path, folder: Path) -> None:
    """Let ``run/best`` point to ``folder``: a relative link, replaced in one step. Raises ``CannotWrite``."""
    link = run / BEST
    if link.is_symlink() and best_checkpoint(run) == folder.resolve():
        return
    temporary = run / f".{BEST}.writing"
    with disk_errors(link):
        remove(temporary)
        temporary.symlink_to(folder.relative_to(run), target_is_directory=True)
        if link.is_dir() and not link.is_symlink():
            set_aside(link, "it is a folder in the place of a link")
        temporary.replace(link)


def unmark_best(run: Path) -> None:
    """Delete a link ``run/best`` that points nowhere. Raises ``CannotWrite``."""
    link = run / BEST
    if link.is_symlink() and best_checkpoint(run) is None:
        with disk_errors(link):
            link.unlink(missing_ok=True)


def _packed(value: Any) -> Any:
    """``value`` without infinite numbers and NaN."""
    if isinstance(value, Mapping):
        return {key: _packed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(inner) for inner in value]
    return {FLOAT: repr(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _unpacked(value: Any) -> Any:
    """The inverse of ``_packed``."""
    if isinstance(value, dict):
        return float(value[FLOAT]) if value.keys() == {FLOAT} else {k: _unpacked(v) for k, v in value.items()}
    return [_unpacked(inner) for inner in value] if isinstance(value, list) else value


def _sha256(path: Path) -> str:
    """As ``file_sha256``, but an error of the disk stays an OSError, which means damage here."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
