"""The SN-GAN ResNets of other projects as ours: spectral norm baked in, and batch norms with another epsilon."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from orthogan.errors import UserError
from orthogan.io.torch_files import read_objects
from orthogan.layers.batch_norm import EPS
from orthogan.models.families.sngan import PLANS
from orthogan.models.foreign.layout import Foreign, Part, state_dict

Names = Sequence[tuple[str, str]]  # regular expression of a module's name there, and its name here
NORMS = r"(blocks\.\d+\.norm[12]|norm)"


def renamed(state: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Return the tensors under our names. Raises KeyError for a module that is not listed."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        place, _, name = key.rpartition(".")
        for pattern, ours in names:
            if match := re.fullmatch(pattern, place):
                found[f"{match.expand(ours)}.{name}"] = value
                break
        else:
            raise KeyError(key)
    return found


def baked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with ``weight / sigma`` of every layer under spectral norm, as it is used in eval mode.

    Of ``torch.nn.utils.spectral_norm`` and its parametrization, sigma is u^T W v with the stored u and v. Mimicry does
    one step of the power iteration from its stored u.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith("weight_orig"):
            stem = key.removesuffix("weight_orig")
            found[f"{stem}weight"] = _divided(value, state[f"{stem}weight_u"], state.get(f"{stem}weight_v"))
        elif key.endswith("parametrizations.weight.original"):
            stem = key.removesuffix("parametrizations.weight.original")
            uv = (state[f"{stem}parametrizations.weight.0._{name}"] for name in "uv")
            found[f"{stem}weight"] = _divided(value, *uv)
        elif key.endswith("weight") and (stem := key.removesuffix("weight")) + "sn_u" in state:
            found[key] = _divided(value, state[f"{stem}sn_u"].flatten(), None)
        elif not re.search(r"(weight_[uv]|parametrizations\.weight\.0\._[uv]|sn_u|sn_sigma)$", key):
            found[key] = value
    return found


def _divided(weight: Tensor, u: Tensor, v: Tensor | None) -> Tensor:
    matrix = weight.flatten(1)
    if v is None:
        v = functional.normalize(u @ matrix, dim=0, eps=1e-12)
        u = functional.normalize(matrix @ v, dim=0, eps=1e-12)
    return weight / torch.dot(u, matrix @ v)


def with_our_epsilon(state: Mapping[str, Tensor], eps: float) -> dict[str, Tensor]:
    """Return the state with every batch norm giving in eval mode, with our epsilon, what it gave with ``eps``.

    The difference moves into the variance. A channel whose variance is too small for that gets another gain.
    """
    found = dict(state)
    for key, variance in state.items():
        if key.endswith("running_var"):
            moved = (variance.double() + eps - EPS).clamp(min=0)
            gain = ((moved + EPS) / (variance.double() + eps)).sqrt()
            found[key] = moved.to(variance.dtype)
            stem = key.removesuffix("running_var")
            place = f"{stem}weight" if f"{stem}weight" in found else f"{stem.removesuffix('norm.')}gain"
            found[place] = (found[place] * gain).to(variance.dtype)
    return found


def read_generator(state: Mapping[str, Tensor], names: Names, *, eps: float, upsample: str = "nearest") -> Foreign:
    """Return the model with this generator. Raises an error of a layout, or ``UserError`` if ours has no such size."""
    tensors: dict[str, Tensor] = {}
    for key, value in renamed(baked(state), names).items():
        tensors[re.sub(rf"^{NORMS}\.(?!norm\.)", r"\1.norm.", key)] = value
    for key in [key for key in tensors if re.fullmatch(rf"{NORMS}\.norm\.(gain|bias|embed)\.weight", key)]:
        place, _, kind = key.removesuffix(".weight").rpartition(".")  # of a conditional norm
        value = tensors.pop(key)
        if kind == "embed":  # rows of gains and biases per class
            tensors[f"{place}.gain"], tensors[f"{place}.bias"] = value.chunk(2, 1)
        else:  # a linear layer of the class as a unit vector
            tensors[f"{place}.{kind}"] = value.t() + (1 if kind == "gain" else 0)
    for key in [key for key in tensors if ".norm.bn." in key]:
        tensors[key.replace(".norm.bn.", ".norm.norm.")] = tensors.pop(key)
    image_channels, channels = tensors["conv.weight"].shape[:2]
    blocks = 1 + max(int(key.split(".")[1]) for key in tensors if key.startswith("blocks."))
    bottom = math.isqrt(tensors["linear.weight"].shape[0] // tensors["blocks.0.conv1.weight"].shape[1])
    resolution = bottom << blocks
    if resolution not in PLANS:
        raise UserError(f"a ResNet generator of {resolution} pixels; sngan supports {', '.join(map(str, PLANS))}")
    gain = tensors.get("blocks.0.norm1.norm.gain")
    part = Part(
        "sngan",
        with_our_epsilon(tensors, eps),
        channels,
        options={} if upsample == "nearest" else {"upsample": upsample},
    )
    return Foreign(
        part,
        resolution,
        image_channels,
        tensors["linear.weight"].shape[1],
        num_classes=0 if gain is None else gain.shape[0],
    )


def read_discriminator(
    state: Mapping[str, Tensor], names: Names, model: Foreign, *, in_place: bool = False
) -> Part | None:
    """Return the discriminator that goes with the generator of ``model``; None if ours is another network.

    ``in_place``: its ReLU is in place, and thus also changes what the shortcut takes.
    """
    try:
        tensors = renamed(baked(state), names)
        plan, width = PLANS[model.resolution], tensors["blocks.0.conv2.weight"].shape[0]
        widths = [model.image_channels, *(width * factor for factor in plan.down)]
        for i, (a, b) in enumerate(itertools.pairwise(widths)):
            hidden = a if i else b
            for name, shape in (("conv1", (hidden, a)), ("conv2", (b, hidden))):
                if tensors[f"blocks.{i}.{name}.weight"].shape[:2] != shape:
                    return None
    except KeyError:
        return None
    classes = tensors["embedding.weight"].shape[0] if "embedding.weight" in tensors else 0
    if f"blocks.{len(plan.down)}.conv1.weight" in tensors or classes != model.num_classes:
        return None
    return Part("sngan", tensors, width, options={"bias": "linear.bias" in tensors, "relu_shortcut": in_place})


def sibling_state(path: Path, key: str) -> dict[str, Tensor]:
    """Return the state dict under ``key`` in another file of the same checkpoint; {} if it cannot be read."""
    try:
        content: Any = read_objects(path)
    except UserError:
        return {}
    return state_dict(content.get(key)) if isinstance(content, Mapping) else {}
