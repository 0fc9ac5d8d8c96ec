"""The discriminator of a checkpoint: its tensors have a file of their own, its config lies in the generator's."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from orthogan.errors import UserError
from orthogan.models.build import build_for_file
from orthogan.models.saved import RAW, count, fill, read_saved, read_tensors, resolve_checkpoint
from orthogan.models.warm_start import DISCRIMINATOR
from orthogan.named_code import NeedsTrust, Trust

FILE = f"{DISCRIMINATOR}.safetensors"


def load_discriminator(path: str | Path, *, device: torch.device | str = "cpu", trust: Trust = False) -> nn.Module:
    """A discriminator in eval mode on ``device``: images (n, c, h, w) in [-1, 1] (and labels) -> logits (n,).

    Its parameters have no gradients.

    Args:
        path: a run folder (its newest whole checkpoint), a checkpoint folder, or a ``discriminator.safetensors`` with
            its ``generator.safetensors`` beside it.
        trust: which classes that are not orthogan's own its config may name, see ``orthogan.load``.

    Raises:
        UserError: there is none, or its tensors do not fit the config of the generator beside it.
    """
    path = Path(path)
    generator = path.with_name(f"{RAW}.safetensors") if path.name == FILE else resolve_checkpoint(path, ema=False)
    file = generator.with_name(FILE)
    if not file.is_file():
        raise UserError(
            f"{path}: there is no {FILE} beside {generator.name}; give a run of a GAN, or a checkpoint of it"
        )
    try:
        about = read_saved(generator, trust=trust)
        tensors = read_tensors(resolve_checkpoint(file), edited=trust is True)
        net = build_for_file(about.config, "discriminator", num_classes=about.num_classes, numbers=count(tensors))
        fill(net, tensors, file)
    except NeedsTrust:
        raise
    except UserError as error:
        raise UserError(
            f"{file}: does not fit the config in {generator.name}: {error}; choose a checkpoint whose files belong "
            "together"
        ) from None
    return net.to(device).eval().requires_grad_(False)
