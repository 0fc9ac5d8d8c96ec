"""StyleGAN2 as NVIDIA's code for PyTorch pickles it: a dict with G, D and G_ema, persistent objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from orthogan.errors import UserError
from orthogan.models.foreign.layout import Foreign, Part, layout
from orthogan.models.foreign.objects import PickledModule, check, mapping, pickled_module

LICENSE = "NVIDIA Source Code License: research and evaluation only, not commercial"
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
_LAYERS = {"conv0": "up", "conv1": "conv", "torgb": "to_rgb", "skip": "shortcut"}
_CRITIC = {"fromrgb": "image", "conv0": "conv1", "conv1": "conv2", "skip": "shortcut"}
_TOP = {"fromrgb": "image", "conv": "conv", "fc": "hidden", "out": "linear"}


@layout(
    "stylegan2-ada",
    about="StyleGAN2-ADA for PyTorch (NVIDIA)",
    source="https://github.com/NVlabs/stylegan2-ada-pytorch",
    license=LICENSE,
)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize a pickle with a generator whose blocks are ``b4``, ``b8`` and so on."""
    if (nets := networks(content)) is None or "synthesis.b4.const" not in nets["G_ema"].state():
        return None
    return Foreign(
        generator=generator(nets["G_ema"]),
        raw=generator(nets["G"]) if "G" in nets else None,
        discriminator=discriminator(nets["D"]) if "D" in nets else None,
        **sizes(nets["G_ema"]),
    )


def networks(content: Any) -> dict[str, PickledModule] | None:
    """Return the pickled networks by name, G_ema among them; None if there are none."""
    if not isinstance(content, Mapping) or not ({"G_ema", "G"} & content.keys()):
        return None
    nets = {name: pickled_module(content[name]) for name in ("G", "D", "G_ema") if content.get(name) is not None}
    nets.setdefault("G_ema", nets["G"] if "G" in nets else nets["G_ema"])
    return nets


def sizes(net: PickledModule) -> dict[str, Any]:
    """Return resolution, channels of the images, width of the latent, and number of classes of a generator."""
    fields = net.fields
    return {
        "resolution": int(fields["img_resolution"]),
        "image_channels": int(fields["img_channels"]),
        "latent_dim": int(fields["z_dim"]),
        "num_classes": int(fields["c_dim"]),
    }


def generator(net: PickledModule) -> Part:
    """Return a generator of ours from theirs."""
    block = net.child("synthesis").child("b8")
    conv = block.child("conv1")
    check("activation", conv.fields.get("activation"), "lrelu")
    check_filter(conv)
    tensors: dict[str, Tensor] = {}
    for name, value in net.state().items():
        if match := re.fullmatch(r"synthesis\.b(\d+)\.(\w+)\.(.+)", name):
            if not name.endswith("resample_filter"):
                tensors[f"blocks.{index(match[1])}.{_LAYERS[match[2]]}.{match[3]}"] = value
        elif name.startswith("mapping."):
            tensors[mapper_name(name)] = value
        elif name == "synthesis.b4.const":
            tensors["constant"] = value
    options = {
        **mapper_options(net.child("mapping"), tensors),
        "architecture": str(block.fields["architecture"]),
        "noise": bool(conv.fields["use_noise"]),
        "clamp": conv.fields.get("conv_clamp"),
    }
    return styled_part(tensors, options)


def styled_part(tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Part:
    """Return a generator of ours from its tensors, with the widths that they have."""
    count = sum(name.endswith("conv.weight") for name in tensors)
    channels, widest = widths([tensors[f"blocks.{i}.conv.weight"].shape[0] for i in range(count)])
    return Part("stylegan2-official", tensors, channels, {**options, "widest": widest})


def discriminator(net: PickledModule) -> Part:
    """Return a discriminator of ours from theirs."""
    resolution, top = int(net.fields["img_resolution"]), net.child("b4")
    block = net.child(f"b{resolution}")
    check("activation", block.child("conv0").fields.get("activation"), "lrelu")
    check_filter(block)
    tensors: dict[str, Tensor] = {}
    for name, value in net.state().items():
        match = re.fullmatch(r"b(\d+)\.(\w+)\.(\w+)", name)
        if match and match[3] == "resample_filter":
            continue
        if match and match[1] == "4":
            tensors[f"{_TOP[match[2]]}.{match[3]}"] = value
        elif match:
            tensors[f"blocks.{index(resolution) - index(match[1])}.{_CRITIC[match[2]]}.{match[3]}"] = value
        elif name.startswith("mapping."):
            tensors[mapper_name(name)] = value
    options: dict[str, Any] = {"architecture": str(block.fields["architecture"])}
    deviation = mapping(top.fields["_modules"]).get("mbstd")
    fields = {"num_channels": 0} if deviation is None else pickled_module(deviation).fields
    options |= {"deviations": int(fields["num_channels"]), "group": int(fields.get("group_size") or 0)}
    options["clamp"] = block.child("conv0").fields.get("conv_clamp")
    if int(net.fields["c_dim"]):
        options |= mapper_options(net.child("mapping"), tensors)
        options["label_width"] = options.pop("w_dim")
    return critic_part(tensors, options)


def critic_part(tensors: Mapping[str, Tensor], options: Mapping[str, Any]) -> Part:
    """Return a discriminator of ours from its tensors, with the widths that they have."""
    count = sum(name.endswith("conv2.weight") for name in tensors)
    outputs = [tensors[f"blocks.{i}.conv2.weight"].shape[0] for i in reversed(range(count))]
    channels, widest = widths([*outputs, tensors["blocks.0.conv1.weight"].shape[0]])
    return Part("stylegan2-official", tensors, channels, {**options, "widest": widest})


def mapper_options(net: PickledModule, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the options of a mapping network of ours from theirs."""
    depth = int(net.fields["num_layers"])
    options: dict[str, Any] = {"w_dim": int(net.fields["w_dim"]), "mapping_layers": depth}
    if depth:
        first = net.child("fc0")
        check("activation", first.fields.get("activation"), "lrelu")
        options["mapping_rate"] = float(first.fields["bias_gain"])
        options["mapping_width"] = tensors["mapper.layers.0.weight"].shape[0]
    if (label := tensors.get("mapper.embedding.weight")) is not None:
        options["label_width"] = label.shape[0]
    return options


def mapper_name(name: str) -> str:
    """Return our name of a tensor of the mapping network."""
    if name == "mapping.w_avg":
        return "w_mean"
    return re.sub(r"^mapping\.fc(\d+)", r"mapper.layers.\1", name).replace("mapping.embed", "mapper.embedding")


def check_filter(net: PickledModule) -> None:
    """Raise ``UserError`` unless the filter of a layer is the published one, [1, 3, 3, 1]."""
    taps = mapping(net.fields["_buffers"]).get("resample_filter")
    if isinstance(taps, Tensor) and not torch.allclose(
        taps.float(), TAPS if taps.ndim == 1 else torch.outer(TAPS, TAPS)
    ):
        raise UserError("this network resamples with another filter than [1, 3, 3, 1]; orthogan supports that one only")


def index(side: str | int) -> int:
    """Return the number of the block whose maps have this side, from 0 at 4 px."""
    return int(side).bit_length() - 3


def widths(found: list[int]) -> tuple[int, int]:
    """Return ``channels`` and ``widest`` for these widths, from the 4x4 map up. Raises ``UserError`` for others."""
    channels, widest = found[-1], max(found)
    if found != [min(channels << i, widest) for i in reversed(range(len(found)))]:
        raise UserError(f"its layers have {found} channels, which do not double at each halving of the maps")
    return channels, widest
