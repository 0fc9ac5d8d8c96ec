"""Exporting trained models for other people to use."""

from orthogan.export.package import package

__all__ = ["package"]
