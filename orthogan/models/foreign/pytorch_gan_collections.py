"""Checkpoints of pytorch-gan-collections: one ``model.pt`` with both networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from orthogan.models.foreign import dcgan
from orthogan.models.foreign._resnet import baked, read_discriminator, read_generator, renamed, with_our_epsilon
from orthogan.models.foreign.layout import Foreign, Part, layout, state_dict

GENERATOR = [
    ("linear", "linear"),
    (r"blocks\.(\d)\.residual\.0", r"blocks.\1.norm1"),
    (r"blocks\.(\d)\.residual\.3", r"blocks.\1.conv1"),
    (r"blocks\.(\d)\.residual\.4", r"blocks.\1.norm2"),
    (r"blocks\.(\d)\.residual\.6", r"blocks.\1.conv2"),
    (r"blocks\.(\d)\.shortcut\.1", r"blocks.\1.shortcut"),
    (r"output\.0", "norm"),
    (r"output\.2", "conv"),
]
DISCRIMINATOR = [
    (r"model\.0\.residual\.0", "blocks.0.conv1"),
    (r"model\.0\.residual\.2", "blocks.0.conv2"),
    (r"model\.0\.shortcut\.1", "blocks.0.shortcut"),
    (r"model\.(\d)\.residual\.1", r"blocks.\1.conv1"),
    (r"model\.(\d)\.residual\.3", r"blocks.\1.conv2"),
    (r"model\.(\d)\.shortcut\.0", r"blocks.\1.shortcut"),
    ("linear", "linear"),
]
# of the network without residual blocks
CNN = [("linear", "linear"), (r"main\.0", "norms.0.norm")]
CNN += [(rf"main\.{3 * i + 2}", f"ups.{i}") for i in range(3)]
CNN += [(rf"main\.{3 * i + 3}", f"norms.{i + 1}.norm") for i in range(3)]
CNN += [(r"main\.11", "conv")]
CNN_CRITIC = [(rf"main\.{2 * i}", f"convs.{i}") for i in range(7)] + [("linear", "linear")]
EPSILON = 1e-5


@layout(
    "pytorch-gan-collections",
    about="pytorch-gan-collections (DCGAN, SN-GAN, WGAN, WGAN-GP)",
    source="https://github.com/w86763777/pytorch-gan-collections",
    license="code: MIT; weights: ask the author of the file",
)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize the networks in ``net_G`` and ``net_D``."""
    state, critic = state_dict(content["net_G"]), state_dict(content.get("net_D"))
    if "blocks.0.residual.0.weight" in state:
        model = read_generator(state, GENERATOR, eps=EPSILON)
        part = read_discriminator(critic, DISCRIMINATOR, model) if critic else None
        return replace(model, discriminator=part)
    if "linear.weight" in state:
        return _plain(state, critic)
    found = dcgan.read_generator(state)
    return None if found is None else Foreign(found[0], found[2], found[3], found[1])


def _plain(state: dict[str, Tensor], critic: dict[str, Tensor]) -> Foreign:
    """Return the SN-DCGAN, which is our ``dcgan``."""
    tensors = with_our_epsilon(renamed(state, CNN), EPSILON)
    outputs, latent_dim = tensors["linear.weight"].shape
    width, image_channels = tensors["ups.0.weight"].shape[0], tensors["conv.weight"].shape[0]
    resolution = {16: 32, 36: 48, 64: 64}[outputs // width]
    model = Foreign(Part("dcgan", tensors, width), resolution, image_channels, latent_dim)
    try:
        theirs = renamed(baked(critic), CNN_CRITIC)
    except KeyError:
        return model
    part = Part("dcgan", theirs, theirs["convs.0.weight"].shape[0]) if theirs else None
    return replace(model, discriminator=part)
