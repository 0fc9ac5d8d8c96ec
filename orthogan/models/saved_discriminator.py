"""The discriminator of a checkpoint: its tensors have a file of their own, its config lies in the generator's."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from orthogan.errors import UserError
from orthogan.models.build import build_discriminator
from orthogan.models.saved import RAW, describe, find
from orthogan.models.warm_start import DISCRIMINATOR

FILE = f"{DISCRIMINATOR}.safetensors"


def load_discriminator(path: str | Path, *, device: torch.device | str = "cpu") -> nn.Module:
    """A discriminator in eval mode on ``device``: images (n, c, h, w) in [-1, 1] (and labels) -> logits (n,).

    Args:
        path: a run folder (its newest whole checkpoint), a checkpoint folder, or a ``discriminator.safetensors`` with
            its ``generator.safetensors`` beside it.

    Raises:
        UserError: there is none, or its tensors do not fit the config of the generator beside it.
    """
    path = Path(path)
    generator = path.with_name(f"{RAW}.safetensors") if path.name == FILE else find(path, ema=False)
    file = generator.with_name(FILE)
    if not file.is_file():
        raise UserError(
            f"{path}: there is no {FILE} beside {generator.name}; give a run of a GAN, or a checkpoint of it"
        )
    about = describe(generator)
    net = build_discriminator(about.config, num_classes=about.num_classes)
    try:
        net.load_state_dict(load_file(file))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise UserError(
            f"{file}: does not fit the config in {generator.name}: {error}; choose a checkpoint whose files belong "
            "together"
        ) from None
    return net.to(device).eval()
