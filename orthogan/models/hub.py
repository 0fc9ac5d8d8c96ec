"""Models of the Hugging Face Hub by name: downloaded once to the cache of ``huggingface_hub``, and uploaded.

A name is ``user/model``, or ``user/model@revision`` with a branch, tag or commit. Only the weights and the card are
downloaded, and nothing in them is executed. ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_TOKEN`` apply.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from orthogan.errors import UserError, install
from orthogan.io.read import printable
from orthogan.models.shipped import CARD, DISCRIMINATOR, GENERATOR, find_shipped, no_such

WORD = r"[A-Za-z0-9_](?:[\w.-]{0,94}[\w])?"
NAME = re.compile(rf"({WORD}/{WORD})(?:@([\w][\w./-]*))?", re.ASCII)
FETCHED = (GENERATOR, DISCRIMINATOR, CARD)
FILES = re.compile(r".*\.(safetensors|pt|pth|bin|ckpt|pkl|tar|zip|ya?ml|json|npz|png)", re.IGNORECASE)


class HubName(NamedTuple):
    """A model on the Hub: ``user/model``, and a branch, tag or commit; None for the main branch."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


class Download(NamedTuple):
    """How a model on the Hub is downloaded; the names and defaults are those of huggingface_hub.

    ``token``: by default ``HF_TOKEN``, or the one that ``hf auth login`` stored; False sends none. ``cache_dir``: by
    default the cache of huggingface_hub. ``local_files_only``: use only what is in the cache. ``force_download``:
    download again.
    """

    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


AS_USUAL = Download()


def parse_hub_name(text: str) -> HubName | None:
    """Return the model on the Hub that ``text`` names; None if it has another form or is a file name.

    Example:
        >>> from orthogan.models.hub import parse_hub_name
        >>> parse_hub_name("user/model@v1")
        HubName(repo='user/model', revision='v1')
    """
    words = NAME.fullmatch(text)
    if words is None or FILES.fullmatch(words[1]) or ".." in text or "--" in words[1]:
        return None
    return HubName(words[1], words[2])


def find_named(text: str, *accepted: str, download: Download = AS_USUAL) -> tuple[Path, bool]:
    """Return the folder or file of a shipped model or of a model on the Hub, and whether it is from the Hub.

    A name whose first part is a folder here, such as ``runs/x``, is a path and is not looked up on the Hub.

    Raises:
        UserError: there is no such model, or it cannot be downloaded.
    """
    if (shipped := find_shipped(text)) is not None:
        return shipped, False
    name = parse_hub_name(text)
    if name is None or os.path.isdir(name.repo.partition("/")[0]):
        raise no_such(text, *accepted)
    if download.force_download:
        fetch.cache_clear()
    return fetch(name, download), True


@cache
def fetch(name: HubName, download: Download = AS_USUAL) -> Path:
    """Download weights and card of a model, or find them in the cache, and return their folder.

    Raises:
        UserError: no such model or revision, no access, offline, not a model of orthogan, or no huggingface_hub.
    """
    absent = f"{name}: no such run, checkpoint, file or shipped model"
    from orthogan import __version__

    with _explained(str(name), absent):
        from huggingface_hub import snapshot_download

        folder = Path(
            snapshot_download(
                name.repo,
                revision=name.revision,
                **download._asdict(),
                allow_patterns=list(FETCHED),
                library_name="orthogan",
                library_version=__version__,
            )
        )
    if not (folder / GENERATOR).is_file():
        raise UserError(
            f"{name}: not an orthogan model: this repository of the Hugging Face Hub has no {GENERATOR}; download a "
            "file of another kind yourself, and give its path"
        )
    return folder


def upload(
    repo: str,
    files: Mapping[str, Path | bytes],
    *,
    revision: str | None = None,
    private: bool | None = None,
    message: str = "Upload an orthogan model",
    token: str | None = None,
    create_pr: bool = False,
    keep: tuple[str, ...] = (),
) -> str:
    """Upload files to a model repository in one commit, and return the address of the commit.

    Args:
        repo: ``user/model``; created if it does not exist.
        files: path or content by name in the repository; other files there stay.
        revision: an existing branch; the main branch by default.
        private: for a new repository; by default, what the account's or organization's settings say.
        token: by default ``HF_TOKEN``, or the one that ``hf auth login`` stored.
        create_pr: open a pull request instead of a commit on the branch.
        keep: names that are not replaced if the repository has them.

    Raises:
        UserError: not a valid name, offline, no permission, or huggingface_hub is missing.
    """
    check_repo(repo)
    from orthogan import __version__

    with _explained(repo, f"{repo}: cannot be uploaded to"):
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi(token=token, library_name="orthogan", library_version=__version__)
        api.create_repo(repo, private=private, exist_ok=True)
        stays = [name for name in keep if api.file_exists(repo, name, revision=revision)]
        parts = [CommitOperationAdd(name, content) for name, content in files.items() if name not in stays]
        done = api.create_commit(repo, parts, commit_message=message, revision=revision, create_pr=create_pr)
    return str(done.pr_url or done.commit_url)


def check_repo(repo: str) -> None:
    """Raise ``UserError`` if ``repo`` is not of the form ``user/model``."""
    name = parse_hub_name(repo)
    if name is None or name.revision is not None:
        raise UserError(f"{printable(repo)}: the name of a model on the Hugging Face Hub is user/model")


def endpoint() -> str:
    """Return the address of the Hub, from ``HF_ENDPOINT`` if it is set. Raises ``UserError`` without the package."""
    with _explained("huggingface_hub", "uploading to the Hugging Face Hub"):
        from huggingface_hub import constants

        return constants.ENDPOINT


@contextmanager
def _explained(name: str, absent: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub into ``UserError``; ``absent``: the start of the message."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "huggingface_hub":
            raise
        raise UserError(
            f"{absent}; the Hugging Face Hub needs the package huggingface_hub: {install('hub')}"
        ) from error
    except Exception as error:
        known = isinstance(error, OSError | ValueError) or type(error).__module__.partition(".")[0].startswith("httpx")
        if not known:
            raise
        raise UserError(f"{absent}; {_reason(name, error)}") from error


def _reason(name: str, error: Exception) -> str:
    from huggingface_hub import constants, errors

    where = constants.ENDPOINT
    status = getattr(getattr(error, "response", None), "status_code", None)
    login = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return f"{where}/{name.partition('@')[0]} asks you to accept its terms first; accept them there, then {login}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name.partition('@')[0]} on {where} has no branch, tag or commit {name.partition('@')[2]!r}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{where} has no model of this name that you may read; if it is private, {login}"
    if status in (401, 403):
        return f"{where} refuses access (HTTP {status}); {login}, with a token that has this permission"
    if constants.is_offline_mode():
        return f"HF_HUB_OFFLINE is set, and the model is not in {constants.HF_HUB_CACHE}; unset it to use {where}"
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is None:
        return "the model is not in the cache, and local_files_only=True allows no download"
    cause: Any = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    lines = str(cause).splitlines() or [""]
    what = f"{type(cause).__name__}: {printable(lines[0])}"
    return f"{where} cannot be used ({what}); check the connection and HF_ENDPOINT"
