"""Whole files or none: a result is written under a temporary name, synced, and renamed into place."""

from __future__ import annotations

import os
from pathlib import Path

from orthogan.errors import UserError


def write_atomic(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write ``data`` to ``path`` so that a reader (or a crash) never meets half a file.

    Missing parent folders are made. Raises ``UserError`` naming the path when it cannot be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {target}: {reason}; choose another place with --out") from error
    return target
