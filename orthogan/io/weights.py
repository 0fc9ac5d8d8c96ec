"""Weights files: read as plain tensors, so that nothing in them is executed; ours contain a hash to detect damage."""

from __future__ import annotations

import json
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from orthogan.errors import UserError
from orthogan.io.hashing import tensors_sha256
from orthogan.io.read import check_regular, open_regular, printable, read_error
from orthogan.io.write import PathLike, write_tensors

# errors of the safetensors reader for incomplete files, or types that torch does not have
UNREADABLE = (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError)
LARGEST_VIEW = 1 << 30  # bytes; an expanded tensor may be larger than its stored data, up to this size
REMEDY = "write torch.save(model.state_dict(), file) where the model's code is, or a .safetensors file"
HASH = "orthogan-sha256"  # key in the metadata: hash of the tensors and of the rest of the metadata


class Damaged(UserError):
    """A damaged file; the message names it."""


def write_sealed(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """Write a safetensors file with its hash, creating its parent folders. Raises ``CannotWrite``."""
    return write_tensors(path, tensors, {**metadata, HASH: compute_seal(tensors, metadata)})


def read_sealed(path: PathLike, *, needed: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors, and the metadata without the hash.

    Args:
        needed: whether a file without a hash counts as damaged.

    Raises:
        Damaged: not a safetensors file, or the content does not match the hash.
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
        raise Damaged(f"{printable(path)}: has no hash of its content")
    return tensors, check_seal(path, tensors, metadata)


def check_seal(path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata without the hash. Raises ``Damaged`` if there is a hash that does not match."""
    plain = {name: text for name, text in metadata.items() if name != HASH}
    if HASH in metadata and metadata[HASH] != compute_seal(tensors, plain):
        raise Damaged(
            f"{printable(path)}: damaged: its content does not match its hash; copy or download the file again (if "
            f"you edited it on purpose, remove {HASH} from its metadata)"
        )
    return plain


def compute_seal(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Compute the hash of tensors and metadata, independent of their order."""
    return tensors_sha256(dict(sorted(tensors.items())), json.dumps(metadata, sort_keys=True))


def read_metadata(file: Path) -> dict[str, str]:
    """Read the metadata of a ``.safetensors`` file.

    Raises:
        UserError: it is not one, or is damaged.
    """
    check_regular(file)
    try:
        with safe_open(file, "pt") as stream:
            return stream.metadata() or {}
    except UNREADABLE as error:
        raise _no_safetensors(file, error) from None


def read_tensors(file: Path, *, verified: bool = False, edited: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file to the CPU.

    Args:
        verified: do not check the hash of the file, because its bytes were already checked.
        edited: accept a file whose content does not match its hash, with a warning, because the user trusts it.

    Raises:
        UserError: as in ``read_metadata``, or the content does not match the hash.
    """
    check_regular(file)
    try:
        with safe_open(file, "pt") as stream:
            metadata = stream.metadata() or {}
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except UNREADABLE as error:
        raise _no_safetensors(file, error) from None
    try:
        if not verified:
            check_seal(file, tensors, metadata)
    except Damaged as damage:
        if not edited:
            raise
        print(f"orthogan: warning: {damage}; it is loaded anyway because you trust it", file=sys.stderr)
    return tensors


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` file, or of a state dict written by ``torch.save``, to the CPU.

    Raises:
        UserError: not such a file, or it contains more than dense numeric tensors.
    """
    if file.suffix == ".safetensors":
        return read_tensors(file)
    what = _kind(file)
    if what:
        raise UserError(f"{printable(file)}: not a file of plain tensors: {what}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # how damaged files look to torch
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # the reader can raise anything; torch's message would advise to read the file unsafely
        raise UserError(
            f"{printable(file)}: not a file of plain tensors: it contains more than tensors, or is damaged; {REMEDY}"
        ) from None
    if not isinstance(content, Mapping):
        raise UserError(
            f"{printable(file)}: not a dictionary of tensors: it contains a {type(content).__name__}; {REMEDY}"
        )
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        inner = [str(key) for key, value in content.items() if isinstance(value, Mapping)]
        remedy = f"such as torch.save(torch.load(file, weights_only=True)[{inner[0]!r}], other)" if inner else "alone"
        names = printable(", ".join(others[:5]))
        raise UserError(
            f"{printable(file)}: not a dictionary of tensors: {names} are not tensors; write only the state dict, "
            f"{printable(remedy)}"
        )
    for key, tensor in content.items():
        if why := _strange(tensor):
            raise UserError(f"{printable(file)}: {printable(key)} is {why}; write it as a dense tensor")
    return {str(key): tensor for key, tensor in content.items()}


def _no_safetensors(file: Path, error: Exception) -> UserError:
    with open_regular(file) as stream:
        reason = not_fetched(stream.read(64) or b"")
    if not reason:
        what = str(error) if isinstance(error, SafetensorError | OSError) else type(error).__name__
        reason = f"{printable(what)}; copy or download it again"
    return UserError(f"{printable(file)}: not a readable safetensors file: {reason}")


def not_fetched(start: bytes) -> str:
    """Describe a file that begins with ``start`` and was not really downloaded; empty for any other."""
    if not start:
        return "it is empty, perhaps after an interrupted download; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with git lfs pull"
    if start.lstrip()[:1] == b"<" and not start.startswith(b"<\0"):
        return f"it is a web page, beginning with {start.lstrip()[:15].decode('latin-1')!r}; download it again"
    return ""


def _kind(file: Path) -> str:
    """Describe a file that cannot contain a state dict; empty for one that may."""
    with open_regular(file) as stream:
        start = stream.read(64) or b""
    if missed := not_fetched(start):
        return missed
    if start.startswith(b"PK"):
        return kind_of_archive(file)
    if start.startswith(b"\x80"):  # a pickle, as torch.save wrote it before version 1.6
        return ""
    return f"it begins with {start[:12]!r}, unlike any PyTorch file, or is damaged"


def kind_of_archive(file: Path) -> str:
    """Describe a zip archive that ``torch.save`` did not write; empty for one that it may have written."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return "it is a damaged zip archive, perhaps after an interrupted download; download it again"
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return f"it is a TorchScript program, which is never loaded; {REMEDY}"
    return "" if any(name.endswith("data.pkl") for name in names) else "it is another kind of zip archive"


def _strange(tensor: Tensor) -> str:
    """Return why a tensor is not a dense array of numbers; empty if it is one."""
    if tensor.is_nested or tensor.layout != torch.strided:
        return "a sparse or nested tensor"
    if tensor.is_meta:
        return "a tensor without data (device meta)"
    if tensor.is_quantized:
        return "a quantized tensor"
    size = tensor.numel() * tensor.element_size()
    if size > max(LARGEST_VIEW, tensor.untyped_storage().nbytes()):
        return f"expanded to {size >> 30} GiB, but only {tensor.untyped_storage().nbytes()} bytes are stored"
    return ""
