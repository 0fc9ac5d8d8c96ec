"""Published weights of feature extractors: where they are looked for, and how they are read without trust."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch

from orthogan.errors import UserError
from orthogan.io.hashing import file_sha256

CONNECT = 10.0  # seconds; torch.hub waits for ever where a firewall swallows packets


def search_folders() -> list[Path]:
    """``pretrained/`` here, the folders of $ORTHOGAN_PRETRAINED, torch-fidelity's (torch.hub's) cache."""
    extra = [Path(p) for p in os.environ.get("ORTHOGAN_PRETRAINED", "").split(os.pathsep) if p]
    return [Path("pretrained"), *extra, Path(torch.hub.get_dir()) / "checkpoints"]


def find_weights(url: str, name: str | None = None) -> Path | None:
    """The file that ``url`` would download (under ``name``), where it is already; its checksum is verified.

    Published names end in the first characters of their SHA-256, as torch.hub has it.

    Raises:
        UserError: a file of that name has another content.
    """
    name = name or url.rsplit("/", 1)[-1]
    for folder in search_folders():
        path = folder / name
        if path.is_file():
            expected = name.rsplit(".", 1)[0].rsplit("-", 1)[-1]
            digest = file_sha256(path)
            if not digest.startswith(expected):
                raise UserError(
                    f"{path}: its SHA-256 begins with {digest[: len(expected)]}, not {expected}: damaged or another "
                    "file; replace it, or name it with --weights to use it as it is"
                )
            return path
    return None


def get_weights(url: str, extractor: str, name: str | None = None) -> Path:
    """The file behind ``url``: found, or downloaded to torch.hub's cache.

    Raises:
        UserError: it is nowhere here and cannot be downloaded; says where to put it.
    """
    name = name or url.rsplit("/", 1)[-1]
    found = find_weights(url, name)
    if found is not None:
        return found
    target = Path(torch.hub.get_dir()) / "checkpoints" / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _reach(url)
        torch.hub.download_url_to_file(url, str(target), hash_prefix=name.rsplit(".", 1)[0].rsplit("-", 1)[-1])
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"extractor {extractor}: its weights are not here and cannot be downloaded ({error}). Put {name} from "
            f"{url} into pretrained/ or {target.parent}, or use efficientnet-lite0, which needs no download"
        ) from None
    return target


def _reach(url: str) -> None:
    """Raises OSError (URLError is one) within seconds where there is no way to the server."""
    try:
        urlopen(Request(url, method="HEAD"), timeout=CONNECT).close()
    except HTTPError:  # it answered, if only that it will not have HEAD
        return
