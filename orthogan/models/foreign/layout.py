"""What a layout is: a function that recognizes the content of a file and returns it as networks of ours.

Content is what ``orthogan.io.torch_files.read_objects`` returns: values, tensors, and inert records of the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from orthogan.config.files import validate
from orthogan.errors import UserError
from orthogan.io.hashing import file_sha256
from orthogan.io.pickles import Made, Named
from orthogan.io.read import printable
from orthogan.io.torch_files import read_objects
from orthogan.io.weights import read_tensors
from orthogan.models.saved import Saved
from orthogan.registry import Registry
from orthogan.words import counted

GUIDE = "docs/guides/foreign-models.md"
UNKNOWN_LICENSE = "unknown: ask the author of the file"
# errors of a layout for content that only resembles its files
_UNFIT = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, ArithmeticError)


@dataclass(frozen=True)
class Part:
    """A network of a file, as one of a registered family.

    Attributes:
        kind: name of the family in ``GENERATORS`` or ``DISCRIMINATORS``.
        tensors: its state, under the names of that family.
        channels: base width. ``options``: further keyword arguments of the class.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    channels: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Foreign:
    """A model of somebody else, as networks of ours.

    Attributes:
        generator: the averaged generator, if the file has one. ``raw``: the one without averaging, if it has both.
        discriminator: None if the file has none.
        notes: sentences for the model card on what the file holds.
        step, images: progress of its training, where the file says so.
    """

    generator: Part
    resolution: int
    image_channels: int
    latent_dim: int
    num_classes: int = 0
    class_names: Sequence[str] = ()
    raw: Part | None = None
    discriminator: Part | None = None
    notes: Sequence[str] = ()
    step: int | None = None
    images: int | None = None


@dataclass(frozen=True)
class Layout:
    """How one project writes its files.

    Attributes:
        read: takes the content and the path of a file, and returns the model, or None if it is not such a file. It may
            raise UserError, or any of ValueError, TypeError, KeyError, IndexError, AttributeError for content that
            only resembles its files.
        about: the project, for messages and cards. ``source``: where its code is.
        license: of the project and, where known, of the weights that its authors published.
        general: whether it is asked only after all others, because it also recognizes files of more special layouts.
    """

    read: Callable[[Any, Path], Foreign | None]
    about: str
    source: str = ""
    license: str = UNKNOWN_LICENSE
    general: bool = False


LAYOUTS: Registry[Layout] = Registry("layout", "orthogan.models.foreign")


def layout(
    name: str, *, about: str, source: str = "", license: str = UNKNOWN_LICENSE, general: bool = False
) -> Callable[[Callable[[Any, Path], Foreign | None]], Callable[[Any, Path], Foreign | None]]:
    """Return a decorator that registers a function as the ``read`` of a ``Layout``."""

    def add(read: Callable[[Any, Path], Foreign | None]) -> Callable[[Any, Path], Foreign | None]:
        LAYOUTS.register(name)(Layout(read, about, source, license, general))
        return read

    return add


@dataclass(frozen=True)
class ForeignFile:
    """A foreign file that a layout recognized."""

    path: Path
    layout: str
    model: Foreign

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return file_sha256(self.path)

    @cached_property
    def about(self) -> Saved:
        """The model as our own files describe themselves; ``origin`` in ``extra`` marks it as foreign."""
        model, parts = self.model, {"generator": self.model.generator, "discriminator": self.model.discriminator}
        nets: dict[str, dict[str, Any]] = {
            name: {
                "kind": part.kind,
                "channels": part.channels,
                "options": dict(part.options),
                "norm": {"kind": "none"},
            }
            for name, part in parts.items()
            if part is not None
        }
        nets["generator"]["latent_dim"] = model.latent_dim
        tree = {"data": {"resolution": model.resolution, "channels": model.image_channels}, "model": nets}
        extra = {"origin": json.dumps(self.origin)}
        extra |= {key: str(value) for key in ("step", "images") if (value := getattr(model, key)) is not None}
        if model.class_names:
            extra["class_names"] = json.dumps(list(model.class_names))
        return Saved(validate(tree, {}, default_origin=printable(self.path)), model.num_classes, extra)

    @cached_property
    def origin(self) -> dict[str, str]:
        """Where the model comes from: file, sha256, layout, project, source, license."""
        known = LAYOUTS.get(self.layout)
        return {
            "file": printable(self.path.name),
            "sha256": self.sha256,
            "layout": self.layout,
            "project": known.about,
            "source": known.source,
            "license": known.license,
        }

    def part(self, name: str, *, ema: bool = True) -> Part | None:
        """Return ``generator`` or ``discriminator``; without ``ema`` the generator that was not averaged, if any."""
        if name == "generator" and not ema and self.model.raw is not None:
            return self.model.raw
        return getattr(self.model, name)


def read_content(path: Path) -> Any:
    """Read the content of a foreign file: a dict of tensors of ``.safetensors``, else as ``read_objects``."""
    return read_tensors(path) if path.suffix == ".safetensors" else read_objects(path)


def recognize(path: Path, content: Any) -> ForeignFile | None:
    """Return the model of a foreign file; None if no layout recognizes it.

    Raises:
        UserError: a layout recognizes it but cannot represent it; the message says why.
    """
    for name, known in sorted(LAYOUTS.items(), key=lambda item: item[1].general):
        try:
            model = known.read(content, path)
        except _UNFIT:
            continue
        if model is not None:
            return ForeignFile(path, name, model)
    return None


def state_dict(content: Any, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors of a state dict whose names begin with ``prefix``, without it; {} if it is no state dict.

    ``module.`` of ``nn.DataParallel`` and ``_orig_mod.`` of ``torch.compile`` are removed first.
    """
    if not isinstance(content, Mapping):
        return {}
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        if not (isinstance(key, str) and isinstance(value, Tensor)):
            return {}
        key = key.removeprefix("_orig_mod.").removeprefix("module.")
        if key.startswith(prefix):
            found[key.removeprefix(prefix)] = value.detach()
    return found


def unknown(path: Path, content: Any) -> UserError:
    """Return the error for a file that no layout recognizes: what it holds, and how to wrap it."""
    projects = ", ".join(known.about for _, known in LAYOUTS.items())
    return UserError(
        f"{printable(path)}: does not contain an orthogan generator, nor one of a layout that orthogan knows "
        f"({projects}). It holds {printable(describe(content))}. To use it, load these weights into your own network "
        f"and pass module:function, as {GUIDE} shows"
    )


def describe(content: Any, depth: int = 0) -> str:
    """Return what a content holds, in words: at most the first keys of two levels."""
    if isinstance(content, Tensor | np.ndarray):
        return f"an array {tuple(content.shape)}"
    if isinstance(content, Made):
        what = content.what
        name = f"{what.module}.{what.name}" if isinstance(what, Named) else str(what)[:60]
        inner = content.state if isinstance(content.state, Mapping) else None
        return f"an object of {name[:80]}" + (f" with {describe(inner, depth + 1)}" if inner and depth < 2 else "")
    if isinstance(content, Mapping):
        if depth > 1:
            return counted(len(content), "key")
        first = ", ".join(
            f"{str(key)[:60]} ({describe(value, depth + 1)})" for key, value in islice(content.items(), 6)
        )
        more = f", and {len(content) - 6} more" if len(content) > 6 else ""
        return f"a mapping with the keys {first}{more}" if content else "an empty mapping"
    if isinstance(content, list | tuple) and depth < 2:
        inner = ", ".join(describe(value, depth + 1) for value in content[:4])
        return f"a {type(content).__name__} of {counted(len(content), 'item')}: {inner}"
    return f"a {type(content).__name__}"
