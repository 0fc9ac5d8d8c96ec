"""Exporting trained models for other people and other programs to use."""

from orthogan.export.export import export
from orthogan.export.package import package
from orthogan.export.style import STYLES, Exportable, Exported, Style

__all__ = ["STYLES", "Exportable", "Exported", "Style", "export", "package"]
