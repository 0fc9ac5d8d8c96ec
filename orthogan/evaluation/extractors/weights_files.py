"""Published weights of feature extractors: where they are searched, and how they are read safely."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch

from orthogan.errors import UserError
from orthogan.io.hashing import file_sha256

CONNECT = 10.0  # seconds; torch.hub waits forever if a firewall drops packets


def search_folders() -> list[Path]:
    """Return ``pretrained/`` here, the folders of $ORTHOGAN_PRETRAINED, and the cache of torch.hub."""
    extra = [Path(p) for p in os.environ.get("ORTHOGAN_PRETRAINED", "").split(os.pathsep) if p]
    return [Path("pretrained"), *extra, Path(torch.hub.get_dir()) / "checkpoints"]


def find_weights(url: str, name: str | None = None, sha256: str | None = None) -> Path | None:
    """Find the file that ``url`` would download (as ``name``) if it already exists; its checksum is verified.

    ``sha256``: its first characters; None: the name ends in them, following torch.hub.

    Raises:
        UserError: a file with this name has different content.
    """
    name = name or url.rsplit("/", 1)[-1]
    for folder in search_folders():
        path = folder / name
        if path.is_file():
            expected = _expected(name, sha256)
            digest = file_sha256(path)
            if not digest.startswith(expected):
                raise UserError(
                    f"{path}: its SHA-256 begins with {digest[: len(expected)]}, not {expected}: it is damaged or "
                    "another file; replace it, or use it anyway with --weights"
                )
            return path
    return None


def get_weights(url: str, extractor: str, name: str | None = None, sha256: str | None = None) -> Path:
    """Return the file behind ``url``: found locally, or downloaded to the cache of torch.hub.

    Raises:
        UserError: it was not found and cannot be downloaded; the message says where to put it.
    """
    name = name or url.rsplit("/", 1)[-1]
    found = find_weights(url, name, sha256)
    if found is not None:
        return found
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _reach(url)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=_expected(name, sha256))
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"extractor {extractor}: its weights were not found and cannot be downloaded ({error}). Put {name} from "
            f"{url} into pretrained/ or {target.parent}, or use efficientnet-lite0, which needs no download"
        ) from None
    return target


def _expected(name: str, sha256: str | None) -> str:
    return name.rsplit(".", 1)[0].rsplit("-", 1)[-1] if sha256 is None else sha256


def _reach(url: str) -> None:
    """Raise OSError (URLError is one) within seconds if the server cannot be reached."""
    try:
        urlopen(Request(url, method="HEAD"), timeout=CONNECT).close()
    except HTTPError:  # it answered, even if it does not support HEAD
        return
