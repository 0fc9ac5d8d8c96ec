"""The models that ship with orthogan, by name: each is a folder with both networks, or the file of a generator."""

from __future__ import annotations

import os
import re
from pathlib import Path

from orthogan.errors import UserError
from orthogan.io.read import printable
from orthogan.registry import did_you_mean

NAME = r"[\w-][\w.-]{0,99}"
CARD = "README.md"  # in the folder of a model, so that GitHub and the Hugging Face Hub show it
GENERATOR, DISCRIMINATOR = "generator.safetensors", "discriminator.safetensors"


def shipped_folder() -> Path:
    """Return the folder of the shipped models: inside an installed package, or ``pretrained/`` of a clone."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "pretrained"  # setup.py puts it into a wheel
    return inside if inside.is_dir() else package.parent / "pretrained"


def shipped_names() -> list[str]:
    """Return the names of the shipped models.

    Example:
        >>> from orthogan.models import shipped_names
        >>> "sprites-sngan" in shipped_names()
        True
    """
    folder = shipped_folder()
    files = [file.stem for file in folder.glob("*.safetensors")]
    return sorted({*files, *(file.parent.name for file in folder.glob(f"*/{GENERATOR}"))})


def find_shipped(name: str) -> Path | None:
    """Return the folder or file of a shipped model; None if there is no model of this name.

    Args:
        name: such as ``sprites-sngan``, ``pretrained/sprites-sngan`` or ``pretrained/sprites-sngan.safetensors``.
    """
    words = re.fullmatch(rf"(?:pretrained/)?({NAME})", name)
    if words is None:
        return None
    stem = words[1].removesuffix(".safetensors")
    folder = shipped_folder()
    if (folder / stem / GENERATOR).is_file():
        return folder / stem
    file = folder / f"{stem}.safetensors"
    return file if file.is_file() else None


def shipped_models() -> dict[str, Path]:
    """Return name -> folder or file of every shipped model."""
    return {name: path for name in shipped_names() if (path := find_shipped(name)) is not None}


def other_shipped(path: str | os.PathLike[str]) -> str:
    """Return ``pretrained/NAME`` if ``path`` exists and hides the shipped model of the same name; else ""."""
    text = os.fspath(path)
    if re.fullmatch(NAME, text) is None or not os.path.lexists(text):
        return ""
    shipped = find_shipped(text)
    if shipped is None or (os.path.exists(text) and os.path.samefile(text, shipped)):
        return ""
    return f"pretrained/{shipped.stem if shipped.suffix == '.safetensors' else shipped.name}"


def no_such(path: object, accepted: str = "a run, a checkpoint, a .safetensors file or module:Class") -> UserError:
    """Return the error for a run, checkpoint, file or name of a shipped model that does not exist."""
    names = shipped_names()
    hint = did_you_mean(str(path), names)
    if not hint:
        hint = f"; name {accepted}" + (f", or a shipped model: {', '.join(names)}" if names else "")
    return UserError(f"{printable(path)}: no such run, checkpoint, file or shipped model{hint}")
