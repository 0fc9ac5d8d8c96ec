"""What a style of export is: a section with its options, which writes a model to files of its kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from orthogan import __version__
from orthogan.config.base import Section
from orthogan.models.generate import model_hash
from orthogan.models.protocol import Generator
from orthogan.registry import Registry

LARGEST_ERROR = 1e-4  # of an image in [-1, 1], between an exported file and torch


@dataclass(frozen=True)
class Exportable:
    """A generator to export, in float32 on the CPU and in eval mode, with its name and the names of its classes."""

    name: str
    generator: Generator
    class_names: list[str] = field(default_factory=list)

    def about(self) -> dict[str, str]:
        """Return what an exported file says about its model."""
        net = self.generator
        return {
            "software": f"orthogan {__version__}",
            "model": self.name,
            "model_hash": model_hash(net),
            "latent_dim": str(net.latent_dim),
            "num_classes": str(net.num_classes),
            "class_names": "\n".join(self.class_names),
        }


@dataclass(frozen=True)
class Exported:
    """Files of one export, and one line of text per file."""

    files: list[Path]
    lines: list[str]


class Style(Section):
    """A style of export. Its fields are its options.

    Attributes:
        suffix: of its files.
    """

    suffix: ClassVar[str]

    def write(self, model: Exportable, out: Path) -> Exported:
        """Write ``model`` to ``out``. Raises ``UserError`` if the network does not fit this style."""
        raise NotImplementedError


def _adopt(thing: Any) -> type[Style]:
    if isinstance(thing, type) and issubclass(thing, Style):
        return thing
    raise TypeError("expected a class that is an orthogan.export.Style")


STYLES: Registry[type[Style]] = Registry("style of export", "orthogan.export.styles", adopt=_adopt)
