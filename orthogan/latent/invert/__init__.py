"""Projection of pictures into the latent space of a generator, and tuning of the generator to them."""

from orthogan.latent.invert.project import Projection, project
from orthogan.latent.invert.tune import tune

__all__ = ["Projection", "project", "tune"]
