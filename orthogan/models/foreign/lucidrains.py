"""StyleGAN2 of lucidrains/stylegan2-pytorch: a dictionary with the state dict of everything under GAN."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orthogan.errors import UserError
from orthogan.models.families.official.lucidrains import MEAN_OF, LucidrainsStyleGAN2Generator
from orthogan.models.foreign.layout import Foreign, Part, layout, state_dict
from orthogan.models.foreign.stylegan2_ada import widths

RATE = 0.1  # of the mapping network; the files do not say it
_STYLES = {"to_style1": "conv1.affine", "to_style2": "conv2.affine", "to_rgb.to_style": "to_rgb.affine"}
_LAYERS = {"conv1": "conv1", "conv2": "conv2", "to_rgb.conv": "to_rgb"}
_LAYERS |= {"to_noise1": "conv1.noise", "to_noise2": "conv2.noise"} | _STYLES


@layout(
    "lucidrains",
    about="lucidrains/stylegan2-pytorch",
    source="https://github.com/lucidrains/stylegan2-pytorch",
    license="code: MIT; weights: ask the author of the file",
)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize ``GAN`` with an averaged mapping network SE and generator GE."""
    state = state_dict(content.get("GAN", content)) if isinstance(content, Mapping) else {}
    if "GE.blocks.0.to_style1.weight" not in state:
        return None
    if any(name.startswith("GE.attns.") for name in state) or "GE.initial_block" not in state:
        raise UserError(f"{path}: this generator has attention or no constant input, which orthogan does not support")
    part, size = generator(state, "SE", "GE"), (state["GE.initial_block"].shape[1], state["SE.net.0.weight"].shape[1])
    count = sum(name.endswith("conv2.weight") for name in part.tensors)
    return Foreign(
        part,
        resolution=4 << (count - 1),
        image_channels=part.tensors["blocks.0.to_rgb.weight"].shape[0],
        latent_dim=size[1],
        raw=generator(state, "S", "G"),
        notes=(
            f"The mean of w was computed from {MEAN_OF} latents at import, and the noise was drawn.",
            "The discriminator of the file is not read.",
        ),
    )


def generator(state: Mapping[str, Tensor], mapper: str, main: str) -> Part:
    """Return a generator of ours from the mapping network and generator with these prefixes."""
    tensors: dict[str, Tensor] = {"constant": state[f"{main}.initial_block"][0]}
    for name, value in state.items():
        if match := re.fullmatch(rf"{mapper}\.net\.(\d+)\.(weight|bias)", name):
            tensors[f"mapper.{int(match[1]) // 2}.{match[2]}"] = value
        elif match := re.fullmatch(rf"{main}\.initial_conv\.(weight|bias)", name):
            tensors[f"conv.{match[1]}"] = value
        elif match := re.fullmatch(rf"{main}\.blocks\.(\d+)\.(.+)\.(weight|bias)", name):
            tensors[f"blocks.{match[1]}.{_LAYERS[match[2]]}.{match[3]}"] = value
    count = sum(name.endswith("conv2.weight") for name in tensors)
    channels, widest = widths([tensors[f"blocks.{i}.conv2.weight"].shape[0] for i in range(count)])
    depth = sum(name.startswith("mapper.") for name in tensors) // 2
    options = {"mapping_layers": depth, "mapping_rate": RATE, "widest": widest}
    net = LucidrainsStyleGAN2Generator(
        resolution=4 << (count - 1),
        image_channels=tensors["blocks.0.to_rgb.weight"].shape[0],
        channels=channels,
        latent_dim=tensors["mapper.0.weight"].shape[1],
        **options,
    )
    net.load_state_dict(tensors, strict=False)  # all but what the file does not hold: the mean of w, and the noise
    net.measure_mean()
    tensors |= {"w_mean": net.w_mean, "noise_const": seeded_noise(net.resolution)}
    return Part("stylegan2-lucidrains", tensors, channels, options)


def seeded_noise(side: int) -> Tensor:
    """Return a map (side, side) of uniform numbers, always the same."""
    return torch.rand(side, side, generator=torch.Generator().manual_seed(0))
