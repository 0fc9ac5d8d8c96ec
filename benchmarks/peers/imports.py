"""Importing a peer from its folder, with stand-ins for what it imports but does not need to train."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from orthogan.errors import UserError


class Nothing:
    """Takes every call and every attribute, and does nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __call__(self, *_: object, **__: object) -> Nothing:
        return self

    def __getattr__(self, name: str) -> Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()


class StandIn(ModuleType):
    """A module of which every name is ``Nothing``."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing


def check(path: str, file: str, peer: str) -> None:
    """Raises UserError unless the folder ``path`` holds ``file``."""
    if not Path(path, file).is_file():
        raise UserError(f"--peer {peer}={path}: there is no {file} in it; name the folder of its repository")


@contextmanager
def beside(path: str, stand_ins: Sequence[str] = ()) -> Iterator[list[str]]:
    """Within the block modules are found in ``path``, and those of ``stand_ins`` that are not installed are empty.

    Gives the names of those that had to be made up; they are gone after the block.
    """
    missing = [name for name in stand_ins if not _installed(name)]
    sys.path.insert(0, str(Path(path).resolve()))
    sys.modules.update({name: StandIn(name) for name in missing})
    try:
        yield missing
    finally:
        for name in missing:
            sys.modules.pop(name, None)


def _installed(name: str) -> bool:
    if "." in name:
        try:
            return importlib.util.find_spec(name) is not None
        except ImportError:
            return False
    return name in sys.modules or importlib.util.find_spec(name) is not None
