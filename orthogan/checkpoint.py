"""A checkpoint: one folder of safetensors and a ``state.json`` that vouches for them.

It is written under a temporary name, synced to disk and renamed, so a folder that carries its final name is
whole; its hashes tell a damaged one later. Nothing here knows what is trained.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from orthogan.io.write import sync, write_tensors, write_text

FORMAT = 1
FOLDER = "checkpoints"
BEST = "best"
_NAME = re.compile(r"step-(\d+)")


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
    """
    final = folder_of(run, step)
    temporary = final.with_name(f".writing-{final.name}")
    for leftover in final.parent.glob(".writing-*") if final.parent.exists() else ():
        shutil.rmtree(leftover)
    temporary.mkdir(parents=True)
    files = {}
    for stem, part in parts.items():
        path = temporary / f"{stem}.safetensors"
        write_tensors(path, part.tensors, part.metadata)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    text = json.dumps({"format": FORMAT, "step": step, "files": files, "state": state}, indent=1, allow_nan=False)
    write_text(temporary / "state.json", text)
    sync(temporary)
    if final.exists():  # the same step written again, or a damaged one that was passed over
        shutil.rmtree(final)
    temporary.rename(final)
    sync(final.parent)
    return final


def verify(folder: Path) -> dict[str, Any]:
    """The ``state`` of a whole checkpoint.

    Raises:
        Damaged: a file is missing, short or altered.
    """
    try:
        record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        files, state, version = record["files"], record["state"], record["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder / 'state.json'}: {error}") from None
    if version != FORMAT:
        raise Damaged(f"{folder}: has format {version}, this orthogan reads format {FORMAT}")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise Damaged(f"{path}: missing")
        if path.stat().st_size != expected["bytes"]:
            raise Damaged(f"{path}: {path.stat().st_size} bytes, {expected['bytes']} were written")
        if _sha256(path) != expected["sha256"]:
            raise Damaged(f"{path}: its content changed since it was written")
    return state


def verify_file(path: Path) -> None:
    """Check one file that lies in a checkpoint folder; a file elsewhere, which nothing vouches for, passes.

    Raises:
        Damaged: it is not what the checkpoint was written with.
    """
    try:
        expected = json.loads((path.parent / "state.json").read_text(encoding="utf-8"))["files"][path.name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return
    if _sha256(path) != expected:
        raise Damaged(f"{path}: its content changed since it was written")


def read(folder: Path, stem: str) -> dict[str, torch.Tensor]:
    """The tensors of ``stem.safetensors``, on the CPU."""
    return load_file(folder / f"{stem}.safetensors")


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder claims to be a checkpoint (``verify`` tells whether it is whole)."""
    return (folder / "state.json").is_file()


def steps(run: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint of a run, oldest first."""
    found = [(int(m[1]), p) for p in (run / FOLDER).glob("step-*") if (m := _NAME.fullmatch(p.name))]
    return sorted(found)


def newest(run: Path) -> tuple[Path, dict[str, Any]] | None:
    """The newest whole checkpoint of a run and its state; a damaged one is named on stderr and passed over."""
    for _, folder in reversed(steps(run)):
        try:
            return folder, verify(folder)
        except Damaged as damage:
            print(f"orthogan: passing over a damaged checkpoint: {damage}", file=sys.stderr)
    return None


def folder_of(run: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies, or would."""
    return run / FOLDER / f"step-{step:09d}"


def prune(run: Path, keep: int, spare: Collection[int] = ()) -> None:
    """Delete all but the ``keep`` newest checkpoints, the one that ``best`` points to, and those of steps ``spare``."""
    best = (run / BEST).resolve()
    for step, folder in steps(run)[:-keep]:
        if step in spare or folder.resolve() == best:
            continue
        doomed = folder.with_name(f".writing-{folder.name}")  # so that an interrupted deletion is no checkpoint
        folder.rename(doomed)
        shutil.rmtree(doomed)


def mark_best(run: Path, folder: Path) -> None:
    """Let ``run/best`` point to ``folder``: a relative link, replaced in one step."""
    if (run / BEST).resolve() == folder.resolve():
        return
    temporary = run / f".{BEST}.writing"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.relative_to(run), target_is_directory=True)
    temporary.replace(run / BEST)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
