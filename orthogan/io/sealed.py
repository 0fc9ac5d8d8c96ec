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

HASH = "orthogan-sha256"  # in the metadata: of the tensors and of the rest of the metadata


class Damaged(UserError):
    """A file that does not hold what it was written with; the message names it."""


def write_sealed(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file with its hash, making its parent folders. Raises ``CannotWrite``."""
    return write_tensors(path, tensors, {**metadata, HASH: compute_seal(tensors, metadata)})


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
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise read_error(path, error) from error
    except (SafetensorError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise Damaged(f"{printable(path)}: damaged, or not a safetensors file: {printable(error)}") from error
    if needed and HASH not in metadata:
        raise Damaged(f"{printable(path)}: it carries no hash of its content")
    return tensors, check_seal(path, tensors, metadata)


def check_seal(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata without the hash. Raises ``Damaged`` where there is a hash, and it is that of another content."""
    plain = {name: text for name, text in metadata.items() if name != HASH}
    if HASH in metadata and metadata[HASH] != compute_seal(tensors, plain):
        raise Damaged(
            f"{printable(path)}: damaged: its content is not what its hash says; copy or download the file again "
            f"(if you edited it on purpose, remove {HASH} from its metadata)"
        )
    return plain


def compute_seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The hash of tensors and metadata, whatever their order."""
    return tensors_sha256(dict(sorted(tensors.items())), json.dumps(metadata, sort_keys=True))
