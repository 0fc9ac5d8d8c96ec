"""The export room: what is made of a trained model for other people."""

from orthogan.export.package import package

__all__ = ["package"]
