"""StyleGAN2 of rosinality/stylegan2-pytorch: a dictionary with the state dicts g_ema, g and d, and latent_avg."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orthogan.models.families.official.stylegan2 import ConcatMapping
from orthogan.models.foreign.layout import Foreign, Part, layout, state_dict
from orthogan.models.foreign.stylegan2_ada import critic_part, styled_part
from orthogan.models.protocol import standard_normal

RATE = 0.01  # of the mapping network; the files do not say it
MEAN_OF = 4096  # samples for the mean of w, as the authors draw them
_LAYER = {
    "conv.weight": "weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
    "bias": "bias",
}
_CRITIC = {
    "conv1.0.weight": "conv1.weight",
    "conv1.1.bias": "conv1.bias",
    "conv2.1.weight": "conv2.weight",
    "conv2.2.bias": "conv2.bias",
    "skip.1.weight": "shortcut.weight",
}
_TOP = {
    "convs.0.0.weight": "blocks.0.image.weight",
    "convs.0.1.bias": "blocks.0.image.bias",
    "final_conv.0.weight": "conv.weight",
    "final_conv.1.bias": "conv.bias",
    "final_linear.0.weight": "hidden.weight",
    "final_linear.0.bias": "hidden.bias",
    "final_linear.1.weight": "linear.weight",
    "final_linear.1.bias": "linear.bias",
}


@layout(
    "rosinality",
    about="rosinality/stylegan2-pytorch",
    source="https://github.com/rosinality/stylegan2-pytorch",
    license="code: MIT; weights converted from NVIDIA's: NVIDIA Source Code License, not commercial",
)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize a dictionary with ``g_ema``, or a state dict of the generator alone."""
    if not isinstance(content, Mapping):
        return None
    states = {key: state_dict(content.get(key)) for key in ("g_ema", "g", "d")}
    alone = state_dict(content)
    main = states["g_ema"] or states["g"] or alone
    if "conv1.conv.modulation.weight" not in main or "input.input" not in main:
        return None
    mean = content.get("latent_avg")
    part = generator(main, mean if isinstance(mean, Tensor) else None)
    both = bool(states["g_ema"] and states["g"])
    side = max(value.shape[-1] for name, value in part.tensors.items() if name.endswith("noise_const"))
    return Foreign(
        part,
        resolution=side,
        image_channels=part.tensors["blocks.0.to_rgb.weight"].shape[0],
        latent_dim=part.tensors["mapper.layers.0.weight"].shape[1],
        raw=generator(states["g"], None) if both else None,
        discriminator=discriminator(states["d"]) if states["d"] else None,
        notes=() if isinstance(mean, Tensor) else (f"The mean of w was computed from {MEAN_OF} latents at import.",),
    )


def generator(state: Mapping[str, Tensor], mean: Tensor | None) -> Part:
    """Return a generator of ours from the state dict of theirs. Raises KeyError for names that it does not have."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(".kernel"):
            continue
        if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", name):
            tensors[f"mapper.layers.{int(match[1]) - 1}.{match[2]}"] = value
        elif match := re.fullmatch(r"noises\.noise_(\d+)", name):
            number = int(match[1])
            tensors[f"blocks.{(number + 1) // 2}.{'up' if number % 2 else 'conv'}.noise_const"] = value[0, 0]
        elif name == "input.input":
            tensors["constant"] = value[0]
        else:
            match = re.fullmatch(r"(conv1|to_rgb1|(?:convs|to_rgbs)\.\d+)\.(.+)", name)
            if match is None:
                raise KeyError(name)
            place, layer = _place(match[1]), _LAYER[match[2]]
            tensors[f"{place}.{layer}"] = value[0] if match[2] == "conv.weight" else value
    for name in [name for name in tensors if name.endswith(("noise_strength", "to_rgb.bias"))]:
        tensors[name] = tensors[name].reshape(() if name.endswith("strength") else -1)
    depth = sum(name.startswith("mapper.layers.") for name in tensors) // 2
    tensors["w_mean"] = _mean_of_w(tensors, depth) if mean is None else mean.detach().reshape(-1)
    options = {"w_dim": tensors["w_mean"].shape[0], "mapping_layers": depth, "mapping_rate": RATE, "scaled": True}
    return styled_part(tensors, options)


def discriminator(state: Mapping[str, Tensor]) -> Part:
    """Return a discriminator of ours from the state dict of theirs."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in _TOP:
            tensors[_TOP[name]] = value
        elif not name.endswith(".kernel"):
            _, number, layer = name.split(".", 2)
            tensors[f"blocks.{int(number) - 1}.{_CRITIC[layer]}"] = value
    return critic_part(tensors, {})


def _place(theirs: str) -> str:
    kind, _, number = theirs.partition(".")
    if not number:
        return "blocks.0.conv" if kind == "conv1" else "blocks.0.to_rgb"
    if kind == "to_rgbs":
        return f"blocks.{int(number) + 1}.to_rgb"
    return f"blocks.{int(number) // 2 + 1}.{'conv' if int(number) % 2 else 'up'}"


@torch.no_grad()
def _mean_of_w(tensors: Mapping[str, Tensor], depth: int) -> Tensor:
    outputs, inputs = (tensors[f"mapper.layers.{i}.weight"].shape[j] for i, j in ((depth - 1, 0), (0, 1)))
    width = tensors["mapper.layers.0.weight"].shape[0]
    mapper = ConcatMapping(inputs, outputs, 0, depth, rate=RATE, width=width)
    mapper.load_state_dict(
        {name.removeprefix("mapper."): value for name, value in tensors.items() if name.startswith("mapper.")}
    )
    return mapper(standard_normal(MEAN_OF, inputs, seed=0), None).mean(0)
