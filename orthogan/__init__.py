"""orthogan: train GANs with well-conditioned layers, measure them, and explore their latent space.

    config = orthogan.load_config("configs/demo.yaml", ["seed=3"])
    run = orthogan.train(config)                     # call it again to resume generator = orthogan.load(run)
    # also a checkpoint, a .safetensors file or "sprites-srngan" results = orthogan.evaluate(generator,
    orthogan.open_configured(config.data), samples=1000) walk = orthogan.traverse(generator,
    orthogan.first_layer_directions(generator)) orthogan.render(walk, "traversal.html")

Tools for your own networks, without our trainer: ``orthogan.weights`` (constraints), ``orthogan.penalties``,
    ``orthogan.gradients`` (hooks on any torch optimizer), ``orthogan.layers``, and the math alone in
    ``orthogan.linalg``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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
    from orthogan.evaluation import evaluate
    from orthogan.latent import Directions, first_layer_directions, native_directions, render, traverse
    from orthogan.models.open import load_generator as load
    from orthogan.models.protocol import Generator
    from orthogan.models.saved import save_generator
    from orthogan.training import train

__all__ = [
    "Config",
    "Directions",
    "Generator",
    "data",
    "disentanglement",
    "errors",
    "evaluate",
    "evaluation",
    "first_layer_directions",
    "gradients",
    "latent",
    "layers",
    "linalg",
    "load",
    "load_config",
    "models",
    "native_directions",
    "open_configured",
    "open_source",
    "penalties",
    "render",
    "save_generator",
    "studies",
    "train",
    "training",
    "traverse",
    "weights",
]

_HOMES = {
    "Config": "orthogan.config.schema",
    "Directions": "orthogan.latent",
    "Generator": "orthogan.models.protocol",
    "evaluate": "orthogan.evaluation",
    "first_layer_directions": "orthogan.latent",
    "load": "orthogan.models.open:load_generator",
    "load_config": "orthogan.config.files",
    "native_directions": "orthogan.latent",
    "open_configured": "orthogan.data",
    "open_source": "orthogan.data",
    "render": "orthogan.latent",
    "save_generator": "orthogan.models.saved",
    "train": "orthogan.training",
    "traverse": "orthogan.latent",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``orthogan --help`` does not wait for torch."""
    if name in _HOMES:
        home, _, other = _HOMES[name].partition(":")
        return getattr(importlib.import_module(home), other or name)
    if name in __all__:
        return importlib.import_module(f"orthogan.{name}")
    raise AttributeError(f"module 'orthogan' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the names that tab completion and ``help()`` show."""
    return sorted([*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"])
