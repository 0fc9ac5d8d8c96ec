"""The generator that a command is about: one that orthogan saved, or somebody else's by ``module:attribute``."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from orthogan.models.named import made_by
from orthogan.models.protocol import Generator, as_generator
from orthogan.models.saved import describe, load
from orthogan.named_code import Trust


@dataclass(frozen=True)
class Subject:
    """``name``: for titles and messages. ``class_names``: in label order, [] where there are none or none are known."""

    name: str
    net: Generator
    class_names: list[str]


def open_generator(path: str, *, device: torch.device | str, ema: bool = True, trust: Trust = False) -> Subject:
    """A run, checkpoint or ``.safetensors`` file of orthogan, or ``module:attribute``: a generator in eval mode.

    The attribute is a net, or a function or class that makes one without arguments. It needs ``latent_dim``,
    ``num_classes`` and ``forward`` as in ``orthogan.models.protocol``, and may have ``class_names``.
    ``trust``: which classes that are not orthogan's own a file may name, see ``orthogan.load``.

    Raises:
        UserError: no such thing, or no generator.
    """
    if ":" in path and not os.path.exists(path):
        made = made_by(path)
        return Subject(path, as_generator(made).to(device).eval(), list(getattr(made, "class_names", [])))
    saved = describe(path, ema=ema, trust=trust)
    return Subject(str(saved.path), load(saved.path, device=device, trust=trust), saved.class_names)
