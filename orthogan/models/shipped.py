"""The models that ship with orthogan, by name."""

from __future__ import annotations

import re
from pathlib import Path

from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.registry import did_you_mean

FOLDER = Path(__file__).resolve().parents[2] / "pretrained"  # of a clone; a wheel carries none


def shipped_names() -> list[str]:
    """The names of the shipped models."""
    return sorted(file.stem for file in FOLDER.glob("*.safetensors"))


def find_shipped(name: str) -> Path | None:
    """The file of a shipped model such as ``sprites-srngan`` or ``pretrained/sprites-srngan``; None: no such name."""
    words = re.fullmatch(r"(?:pretrained/)?([\w-]{1,100})(?:\.safetensors)?", name)
    path = FOLDER / f"{words[1]}.safetensors" if words else None
    return path if path and path.is_file() else None


def no_such(path: object, accepted: str = "a run, a checkpoint, a .safetensors file or module:Class") -> UserError:
    """What to say of a run, checkpoint, file or name of a shipped model that does not exist."""
    hint = did_you_mean(str(path), shipped_names()) or f"; name {accepted}"
    return UserError(f"{printable(path)}: no such run, checkpoint or file{hint}")
