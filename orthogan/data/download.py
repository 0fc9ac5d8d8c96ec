"""Data sets downloaded by torchvision: every failure becomes one message that says which file to put where."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orthogan.errors import UserError
from orthogan.io.read import describe_error, exists

NETWORK_TIMEOUT = 15.0  # without an answer for this long, the network counts as unavailable [s]


@contextmanager
def fetching(kind: str, advice: str, folder: Path) -> Iterator[None]:
    """Turn every failure of a download into a UserError that ends with ``advice``, after a short timeout.

    After a failure, empty folders that were created for ``folder`` are removed.
    """
    made = next((place for place in (*reversed(folder.parents), folder) if not exists(place, "folder")), None)
    done = False
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_TIMEOUT)
    try:
        yield
        done = True
    except UserError:
        raise
    except Exception as error:  # urllib, tarfile, hash checks and gdown share no base class
        raise UserError(f"{kind}: not found, and the download failed ({describe_error(error)}). {advice}") from error
    finally:
        socket.setdefaulttimeout(before)
        if made is not None and not done:
            for place, _, _ in os.walk(made, topdown=False):
                with suppress(OSError):
                    os.rmdir(place)
