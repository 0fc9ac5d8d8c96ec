"""orthogan: train GANs with well-conditioned layers, measure them, and explore their latent space.

    generator = orthogan.load("faces-srngan")          # a shipped model, run, checkpoint, file or module:Class
    orthogan.sample(generator, 16, seed=0)             # in a notebook, results show themselves
    orthogan.traverse(generator, method="sefa")
    orthogan.discover(generator, "sefa,jacobian")
    orthogan.fid(generator, "pictures/")
    run = orthogan.train("configs/demo.yaml", seed=3)  # call it again to resume

Tools for your own networks, without our trainer: ``orthogan.weights`` (constraints), ``orthogan.penalties``,
``orthogan.gradients`` (hooks on any torch optimizer), ``orthogan.layers``, and the math alone in ``orthogan.linalg``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orthogan.lazy import lazy_names

__version__ = "0.2.0"

if TYPE_CHECKING:
    from orthogan import (
        data,
        disentanglement,
        errors,
        evaluation,
        gradients,
        latent,
        layers,
        linalg,
        models,
        penalties,
        studies,
        training,
        weights,
    )
    from orthogan.config.files import load_config
    from orthogan.config.schema import Config
    from orthogan.data import open_configured, open_source
    from orthogan.disentanglement import mig
    from orthogan.evaluation import evaluate, fid
    from orthogan.latent import Directions, Latents, first_layer_directions, native_directions, render, traverse
    from orthogan.latent.discovery import discover
    from orthogan.latent.invert import project
    from orthogan.models.open import load_generator as load
    from orthogan.models.protocol import Generator
    from orthogan.models.samples import sample
    from orthogan.models.saved import save_generator
    from orthogan.training import train

__all__ = [
    "Config",
    "Directions",
    "Generator",
    "Latents",
    "data",
    "discover",
    "disentanglement",
    "errors",
    "evaluate",
    "evaluation",
    "fid",
    "first_layer_directions",
    "gradients",
    "latent",
    "layers",
    "linalg",
    "load",
    "load_config",
    "mig",
    "models",
    "native_directions",
    "open_configured",
    "open_source",
    "penalties",
    "project",
    "render",
    "sample",
    "save_generator",
    "studies",
    "train",
    "training",
    "traverse",
    "weights",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "config.files": ("load_config",),
        "config.schema": ("Config",),
        "data": ("open_configured", "open_source"),
        "disentanglement": ("mig",),
        "evaluation": ("evaluate", "fid"),
        "latent": ("Directions", "Latents", "first_layer_directions", "native_directions", "render", "traverse"),
        "latent.discovery": ("discover",),
        "latent.invert": ("project",),
        "models.open": ("load=load_generator",),
        "models.protocol": ("Generator",),
        "models.samples": ("sample",),
        "models.saved": ("save_generator",),
        "training": ("train",),
    },
    modules=(
        "data",
        "disentanglement",
        "errors",
        "evaluation",
        "gradients",
        "latent",
        "layers",
        "linalg",
        "models",
        "penalties",
        "studies",
        "training",
        "weights",
    ),
)
