"""The generator that a command is about: one that orthogan saved, or somebody else's by ``module:attribute``."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from orthogan.models.named import instantiate
from orthogan.models.protocol import Generator, as_generator
from orthogan.models.saved import load_generator, read_saved
from orthogan.named_code import Trust


@dataclass(frozen=True)
class LoadedGenerator:
    """``name``: for titles and messages. ``class_names``: in label order, [] where there are none or none are known."""

    name: str
    net: Generator
    class_names: list[str]


def open_generator(path: str, *, device: torch.device | str, ema: bool = True, trust: Trust = False) -> LoadedGenerator:
    """A run, checkpoint or ``.safetensors`` file of orthogan, or ``module:attribute``: a generator in eval mode.

    The attribute is a net, or a function or class that makes one without arguments. It needs ``latent_dim``,
    ``num_classes`` and ``forward`` as in ``orthogan.models.protocol``, and may have ``class_names``.
    ``trust``: which classes that are not orthogan's own a file may name, see ``orthogan.load``.

    Raises:
        UserError: no such thing, or no generator.
    """
    if ":" in path and not os.path.exists(path):
        made = instantiate(path)
        return LoadedGenerator(path, as_generator(made).to(device).eval(), list(getattr(made, "class_names", [])))
    saved = read_saved(path, ema=ema, trust=trust)
    return LoadedGenerator(str(saved.path), load_generator(saved.path, device=device, trust=trust), saved.class_names)
