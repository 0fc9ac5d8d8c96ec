"""Safetensors files that carry a hash of all that they hold, so that a damaged byte is noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from orthogan.errors import UserError
from orthogan.io.hashing import tensors_sha256
from orthogan.io.read import check_regular, printable, read_error
from orthogan.io.write import PathLike, write_tensors

HASH = "sha256"  # in the metadata: of the tensors and of the rest of the metadata


class Damaged(UserError):
    """A file that does not hold what it was written with; the message names it."""


def write_sealed(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file with its hash, making its parent folders. Raises ``CannotWrite``."""
    return write_tensors(path, tensors, {**metadata, HASH: _hash(tensors, metadata)})


def read_sealed(path: PathLike, *, needed: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, and the metadata without the hash.

    Args:
        needed: whether a file without a hash counts as damaged.

    Raises:
        Damaged: not a safetensors file, or another content than the hash says.
        UserError: not a readable file.
    """
    check_regular(path)
    try:
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except OSError as error:
        raise read_error(path, error) from error
    except (SafetensorError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise Damaged(f"{printable(path)}: damaged, or not a safetensors file: {printable(error)}") from error
    expected = metadata.pop(HASH, None)
    if expected is None and needed:
        raise Damaged(f"{printable(path)}: it carries no hash of its content")
    if expected is not None and expected != _hash(tensors, metadata):
        raise Damaged(f"{printable(path)}: damaged: its content is not what its hash says")
    return tensors, metadata


def _hash(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    return tensors_sha256(dict(sorted(tensors.items())), json.dumps(metadata, sort_keys=True))
