"""Checkpoints: folders of safetensors files and a ``state.json`` with hashes of all of them.

A checkpoint is written under a temporary name, synced to disk and renamed, so a folder with its final name is complete;
its hashes reveal later damage. This module does not depend on what is trained.
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
_whole: set[str] = set()  # folders that this process has written or verified


class Damaged(Exception):
    """A damaged checkpoint folder; the message says which file and why."""


@dataclass(frozen=True)
class Part:
    """One safetensors file: tensors by name, and string metadata."""

    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, str]


def save(run: Path, step: int, parts: Mapping[str, Part], state: Mapping[str, Any]) -> Path:
    """Write ``run/checkpoints/step-NNNNNNNNN`` atomically and return it.

    Args:
        parts: file stem -> tensors; each becomes ``stem.safetensors``.
        state: JSON-serializable values, stored in ``state.json`` with the hashes of the files.

    Raises:
        CannotWrite: nothing of the new checkpoint is left, and the others are unchanged.
    """
    final = checkpoint_folder(run, step)
    temporary = final.with_name(f".writing-{final.name}")
    with disk_errors(final, f"delete or move {final.parent}"):
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
                set_aside(final, "a checkpoint must be written there")
            temporary.rename(final)
            sync(final.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    _whole.add(os.path.realpath(final))
    return final


def verify(folder: Path, needed: Needed | None = None) -> dict[str, Any]:
    """Verify a checkpoint and return its ``state``.

    Args:
        needed: maps the names of all files to those whose content to check; for the others only the size is checked.

    Raises:
        Damaged: a file is missing, truncated or changed.
        UserError: a file cannot be read, or was written by a later version of orthogan.
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
        raise Damaged(f"{path}: does not describe a checkpoint")
    version = record.get("format")
    sealed = version != 1 or record.keys() != {"format", "step", "files", "state"}
    seal = record.pop(SEAL, None)
    if sealed and seal != json_sha256(record):
        raise Damaged(f"{path}: its content has changed since it was written")
    if sealed and version != FORMAT:
        raise UserError(
            f"{path}: has format {version}, but this version of orthogan only reads formats 1 and {FORMAT}; update "
            "orthogan"
        )
    try:
        files = {
            str(name): (int(expected["bytes"]), str(expected["sha256"])) for name, expected in record["files"].items()
        }
        state = dict(_unpacked(record["state"]))
        if any(Path(name).name != name for name in files):
            raise ValueError("it names files in other folders")
    except DAMAGE as error:
        raise Damaged(f"{path}: does not describe a checkpoint ({error!r})") from None
    checked = files if needed is None else needed(files)
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path}: missing")
        if path.stat().st_size != size:
            raise Damaged(f"{path}: {path.stat().st_size} bytes, but {size} bytes were written")
        if name in checked and _sha256(path) != digest:
            raise Damaged(f"{path}: its content has changed since it was written")
    return state


def verify_file(path: Path) -> bool:
    """Check one file in a checkpoint folder; returns False for a file elsewhere, which has no recorded hash.

    Raises:
        Damaged: it differs from the file that was written.
    """
    try:
        expected = read_json(path.parent / STATE, LARGEST_STATE)["files"][path.name]["sha256"]
    except (UserError, *DAMAGE):
        return False
    if _sha256(path) != expected:
        raise Damaged(f"{path}: its content has changed since it was written")
    return True


def read(folder: Path, stem: str) -> dict[str, torch.Tensor]:
    """Read the tensors of ``stem.safetensors`` to the CPU."""
    return load_file(folder / f"{stem}.safetensors")


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder looks like a checkpoint (``verify`` checks whether it is complete)."""
    return (folder / STATE).is_file()


def steps(run: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of every checkpoint of a run, oldest first; files and empty folders are ignored."""
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
    """Return the newest intact checkpoint of a run and its state; damaged ones are reported on stderr and skipped.

    Args:
        aside: rename damaged ones to ``damaged-step-NNNNNNNNN``; for the training process.
        check: raises a KeyError, TypeError or ValueError for an invalid state.
        needed: as in ``verify``.

    Raises:
        UserError: one cannot be read, or was written by a later version of orthogan.
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
            print(f"orthogan: skipping a damaged checkpoint: {damage}", file=sys.stderr)
            damaged.append(folder)
    if aside and whole is not None:  # if all are damaged, they are kept
        for folder in damaged:
            set_aside(folder, "it is damaged")
    return whole


def digest(folder: Path) -> str:
    """Return the hash of ``state.json``, which contains the hashes of all other files. Raises ``UserError``."""
    return hashlib.sha256(read_regular(folder / STATE, LARGEST_STATE)).hexdigest()


def checkpoint_folder(run: Path, step: int) -> Path:
    """Return the path of the checkpoint of ``step``, which need not exist."""
    return run / FOLDER / f"step-{step:09d}"


def prune(run: Path, keep: int, spare: Collection[int] = ()) -> None:
    """Delete all checkpoints except the ``keep`` newest, the one that ``best`` points to, and those of steps ``spare``.

    Only those that this process has written or verified count, so that ``keep`` intact ones are left. Raises
    ``CannotWrite``.
    """
    best, kept = best_checkpoint(run), 0
    for step, folder in reversed(steps(run)):
        if kept < keep:
            kept += os.path.realpath(folder) in _whole
        elif step not in spare and folder.resolve() != best:
            doomed = folder.with_name(
                f".writing-{folder.name}"
            )  # so that an interrupted deletion does not look like a checkpoint
            with disk_errors(folder):
                remove(doomed)
                folder.rename(doomed)
                shutil.rmtree(doomed)
            _whole.discard(os.path.realpath(folder))


def sweep(run: Path) -> None:
    """Delete incomplete files that killed processes have left in the run folder. Raises ``CannotWrite``."""
    with disk_errors(run):
        for folder, patterns in ((run / FOLDER, (".writing-*",)), (run, _LEFTOVERS)):
            for pattern in patterns:
                for leftover in folder.glob(pattern):
                    remove(leftover)


def best_checkpoint(run: Path) -> Path | None:
    """Return the folder that ``best`` points to, or None."""
    try:
        return (run / BEST).resolve(strict=True)
    except (OSError, RuntimeError):  # a broken link, or a link to itself
        return None


def mark_best(run: Path, folder: Path) -> None:
    """Make ``run/best`` a relative link to ``folder``, replaced atomically. Raises ``CannotWrite``."""
    link = run / BEST
    if link.is_symlink() and best_checkpoint(run) == folder.resolve():
        return
    temporary = run / f".{BEST}.writing"
    with disk_errors(link):
        remove(temporary)
        temporary.symlink_to(folder.relative_to(run), target_is_directory=True)
        if link.is_dir() and not link.is_symlink():
            set_aside(link, "it is a folder, but must be a link")
        temporary.replace(link)


def unmark_best(run: Path) -> None:
    """Delete a broken link ``run/best``. Raises ``CannotWrite``."""
    link = run / BEST
    if link.is_symlink() and best_checkpoint(run) is None:
        with disk_errors(link):
            link.unlink(missing_ok=True)


def _packed(value: Any) -> Any:
    """Encode infinite numbers and NaN in ``value``."""
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
    """Like ``file_sha256``, but disk errors stay OSErrors, which mean damage here."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
