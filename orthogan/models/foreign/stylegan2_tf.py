"""StyleGAN2 and StyleGAN2-ADA as NVIDIA's code for TensorFlow pickles them: a tuple of three networks (G, D, Gs)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from orthogan.errors import UserError
from orthogan.io.pickles import Made
from orthogan.models.foreign.layout import Foreign, Part, layout
from orthogan.models.foreign.objects import as_tensor, check, mapping
from orthogan.models.foreign.stylegan2_ada import LICENSE, critic_part, index, styled_part

DEEPEST = 8
_LAYERS = {"Conv": "conv", "Conv0_up": "up", "Conv1": "conv", "ToRGB": "to_rgb", "Skip": "shortcut"}
_CRITIC = {"FromRGB": "image", "Conv0": "conv1", "Conv1_down": "conv2", "Skip": "shortcut"}
_TOP = {"4x4/Conv": "conv", "4x4/Dense0": "hidden", "Output": "linear", "4x4/FromRGB": "image"}


@layout(
    "stylegan2-tf",
    about="StyleGAN2 for TensorFlow (NVIDIA)",
    source="https://github.com/NVlabs/stylegan2",
    license=LICENSE,
)
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize a tuple of three networks of ``dnnlib.tflib``."""
    if not isinstance(content, tuple) or len(content) != 3:
        return None
    if not all(isinstance(net, Made) and "variables" in mapping(net.state) for net in content):
        return None
    raw, critic, averaged = content
    part, options = generator(averaged), mapping(mapping(averaged.state)["static_kwargs"])
    return Foreign(
        part,
        resolution=int(options.get("resolution", 1024)),
        image_channels=int(options.get("num_channels", 3)),
        latent_dim=int(options.get("latent_size", 512)),
        num_classes=int(options.get("label_size") or 0),
        raw=generator(raw),
        discriminator=discriminator(critic),
    )


def variables(net: Any, prefix: str = "", depth: int = 0) -> dict[str, Tensor]:
    """Return the variables of a network and its components by name."""
    if depth > DEEPEST:
        raise ValueError("networks nested too deeply")
    state = mapping(net.state)
    found = {prefix + str(name): as_tensor(value) for name, value in state["variables"]}
    for name, part in mapping(state.get("components") or {}).items():
        found |= variables(part, f"{prefix}{name}/", depth + 1)
    return found


def generator(net: Any) -> Part:
    """Return a generator of ours from theirs."""
    given, found = mapping(mapping(net.state)["static_kwargs"]), variables(net)
    if "synthesis/4x4/Conv/mod_weight" not in found:
        raise UserError("this is a generator of StyleGAN (2018) or of configs A to D of StyleGAN2; E and F are known")
    if "mapping/LabelConcat/weight" in found:
        raise UserError("this generator joins labels and latents before their normalization, which is not supported")
    check("nonlinearity", given.get("nonlinearity"), "lrelu")
    check("mapping_nonlinearity", given.get("mapping_nonlinearity"), "lrelu")
    check("resample_kernel", given.get("resample_kernel"), [1, 3, 3, 1])
    tensors: dict[str, Tensor] = {}
    for name, value in found.items():
        if name == "dlatent_avg":
            tensors["w_mean"] = value
        elif name == "synthesis/4x4/Const/const":
            tensors["constant"] = value[0]
        elif match := re.fullmatch(r"synthesis/noise(\d+)", name):
            number = int(match[1])
            tensors[f"blocks.{(number + 1) // 2}.{'up' if number % 2 else 'conv'}.noise_const"] = value[0, 0]
        elif match := re.fullmatch(r"mapping/(?:Dense(\d+)|LabelEmbed)/(weight|bias)", name):
            place = "embedding" if match[1] is None else f"layers.{match[1]}"
            tensors[f"mapper.{place}.{match[2]}"] = value.mT if match[2] == "weight" else value
        elif match := re.fullmatch(r"synthesis/(\d+)x\1/(\w+)/(\w+)", name):
            _layer(tensors, f"blocks.{index(match[1])}.{_LAYERS[match[2]]}", match[3], value)
    options: dict[str, Any] = {
        "architecture": str(given.get("architecture") or "skip"),
        "noise": "blocks.0.conv.noise_const" in tensors,
        "clamp": given.get("conv_clamp"),
        "scaled": True,
        "w_dim": int(given.get("dlatent_size", 512)),
        "mapping_layers": int(given.get("mapping_layers", 8)),
        "mapping_rate": float(given.get("mapping_lrmul", 0.01)),
    }
    if options["mapping_layers"]:
        options["mapping_width"] = tensors["mapper.layers.0.weight"].shape[0]
    if (label := tensors.get("mapper.embedding.weight")) is not None:
        options["label_width"] = label.shape[0]
    return styled_part(tensors, options)


def discriminator(net: Any) -> Part:
    """Return a discriminator of ours from theirs."""
    given, found = mapping(mapping(net.state)["static_kwargs"]), variables(net)
    check("nonlinearity", given.get("nonlinearity"), "lrelu")
    check("resample_kernel", given.get("resample_kernel"), [1, 3, 3, 1])
    resolution = int(given.get("resolution", 1024))
    tensors: dict[str, Tensor] = {}
    for name, value in found.items():
        layer, _, kind = name.rpartition("/")
        if layer in _TOP:
            place = _TOP[layer]
        elif match := re.fullmatch(r"Mapping(\d+)|LabelEmbed", layer):
            place = "mapper.embedding" if match[1] is None else f"mapper.layers.{match[1]}"
        elif match := re.fullmatch(r"(\d+)x\1/(\w+)", layer):
            place = f"blocks.{index(resolution) - index(match[1])}.{_CRITIC[match[2]]}"
        else:
            continue
        _layer(tensors, place, kind, value)
    group = given.get("mbstd_group_size", 4)
    options: dict[str, Any] = {
        "architecture": str(given.get("architecture") or "resnet"),
        "clamp": given.get("conv_clamp"),
        "group": int(group or 0),
        "deviations": int(given.get("mbstd_num_features", 1)),
    }
    if given.get("label_size"):
        if "mapper.embedding.weight" not in tensors:
            raise UserError("this discriminator has an output per class, which is not supported")
        depth = int(given.get("mapping_layers") or 0)
        options |= {"mapping_layers": depth, "mapping_rate": float(given.get("mapping_lrmul") or 0.1)}
        options["label_width"] = tensors["linear.weight"].shape[0]
        if depth:
            options["mapping_width"] = tensors["mapper.layers.0.weight"].shape[0]
    return critic_part(tensors, options)


def _layer(tensors: dict[str, Tensor], place: str, kind: str, value: Tensor) -> None:
    """Add a variable of a layer: matrices (in, out), kernels (h, w, in, out), styles around zero, flipped where up."""
    if kind == "weight" and value.dim() == 4:
        value = value.permute(3, 2, 0, 1)
        flipped = place.endswith((".up", "shortcut"))  # for a 1x1 kernel no difference
        tensors[f"{place}.weight"] = value.flip(2, 3) if flipped else value
    elif kind in ("weight", "mod_weight"):
        tensors[f"{place}.{'weight' if kind == 'weight' else 'affine.weight'}"] = value.mT
    elif kind == "mod_bias":
        tensors[f"{place}.affine.bias"] = value + 1
    else:
        tensors[f"{place}.{kind}"] = value
