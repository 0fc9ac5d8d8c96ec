"""BigGAN of PyTorch-StudioGAN (a file per network), and BigGAN-deep of pytorch-pretrained-biggan (a state dict)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from orthogan.errors import UserError
from orthogan.models.foreign._resnet import baked, sibling_state
from orthogan.models.foreign.layout import Foreign, Part, layout, state_dict

_ATTENTION = {"theta": "theta", "phi": "phi", "g": "g", "attn": "out", "o_conv": "out"}
_NORM = {"scale": "gain", "offset": "shift", "gain": "gain", "bias": "shift"}


@layout(
    "biggan-deep",
    about="pytorch-pretrained-biggan (BigGAN-deep)",
    source="https://github.com/huggingface/pytorch-pretrained-BigGAN",
    license="code: MIT; weights of DeepMind on TensorFlow Hub: Apache 2.0",
)
def read_deep(content: Any, path: Path) -> Foreign | None:
    """Recognize the state dict of a BigGAN-deep, such as biggan-deep-128-pytorch_model.bin."""
    given = state_dict(content)
    if "generator.gen_z.weight_orig" not in given or "embeddings.weight" not in given:
        return None
    state = baked(given)
    places = sorted({int(m[1]) for name in state if (m := re.match(r"generator\.layers\.(\d+)\.", name))})
    attention = next((i for i in places if f"generator.layers.{i}.gamma" in state), -1)
    number = {place: i for i, place in enumerate(place for place in places if place != attention)}
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if name == "embeddings.weight":
            tensors["embedding.weight"] = value.mT
        elif match := re.fullmatch(r"generator\.layers\.(\d+)\.(conv|bn)_(\d)\.(.+)", name):
            place = f"blocks.{number[int(match[1])]}.{'convs' if match[2] == 'conv' else 'norms'}.{match[3]}"
            tensors[f"{place}.{_normed(match[4]) if match[2] == 'bn' else match[4]}"] = value
        elif match := re.fullmatch(r"generator\.layers\.\d+\.(?:snconv1x1_(\w+)\.weight|gamma)", name):
            tensors["attention.gamma" if match[1] is None else f"attention.{_ATTENTION[match[1]]}.weight"] = value
        elif match := re.fullmatch(r"generator\.(gen_z|conv_to_rgb)\.(weight|bias)", name):
            tensors[f"{'linear' if match[1] == 'gen_z' else 'image'}.{match[2]}"] = value
        elif match := re.fullmatch(r"generator\.bn\.(.+)", name):
            tensors[f"norm.{_normed(match[1])}"] = value
        else:
            raise KeyError(name)
    for name in ("image.weight", "image.bias"):
        tensors[name] = tensors[name][:3]  # the other channels are computed and thrown away
    count = len(number)
    classes, label = tensors["embedding.weight"].shape
    widths = [tensors[f"blocks.{i}.convs.0.weight"].shape[1] for i in range(count)]
    widths.append(tensors[f"blocks.{count - 1}.convs.3.weight"].shape[0])
    options = {"widths": widths, "attention": attention, "rows": tensors["norm.means"].shape[0], "label_width": label}
    return Foreign(
        Part("biggan-deep", tensors, channels=widths[-1], options=options),
        resolution=4 << (count // 2),
        image_channels=3,
        latent_dim=tensors["linear.weight"].shape[1] - label,
        num_classes=classes,
        notes=("The attribute truncation of the network, from 0 to 1, chooses the statistics of its norms.",),
    )


@layout(
    "studiogan-biggan",
    about="PyTorch-StudioGAN (BigGAN)",
    source="https://github.com/POSTECH-CVLab/PyTorch-StudioGAN",
    license="code: MIT; weights: ask its authors",
)
def read_studio(content: Any, path: Path) -> Foreign | None:
    """Recognize a generator of the backbone ``big_resnet``; the discriminator is read from its file beside it."""
    given = studio_state(content)
    if "linear0.weight_orig" not in given and "linear0.weight" not in given:
        return None
    if not any(name.startswith("blocks.0.0.bn1.gain.") for name in given) or "bn4.running_mean" not in given:
        return None
    state = baked(given)
    if any(name.startswith("info_") for name in state) or "blocks.0.0.conv2d4.weight" in state:
        raise UserError(f"{path}: a BigGAN with information codes or of the deep kind, which is not supported")
    place, attention = _numbered(state)
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        if match := re.fullmatch(r"blocks\.(\d+)\.0\.(conv2d(\d)|bn(\d))\.(.+)", name):
            block = f"blocks.{place[int(match[1])]}"
            if match[3] is not None:
                tensors[f"{block}.{['shortcut', 'conv1', 'conv2'][int(match[3])]}.{match[5]}"] = value
            else:
                tensors[f"{block}.norm{match[4]}.{_normed(match[5].removeprefix('bn.'))}"] = value
        elif match := re.fullmatch(r"blocks\.\d+\.0\.(?:conv1x1_(\w+)\.weight|sigma)", name):
            tensors["attention.gamma" if match[1] is None else f"attention.{_ATTENTION[match[1]]}.weight"] = value
        elif match := re.fullmatch(r"(linear0|conv2d5|bn4|shared)\.(.+)", name):
            ours = {"linear0": "linear", "conv2d5": "image", "bn4": "norm", "shared": "embedding"}[match[1]]
            tensors[f"{ours}.{_stored(match[2])}"] = value
        else:
            raise KeyError(name)
    _as_rows(tensors)
    count = len(place)
    widths = [tensors[f"blocks.{i}.conv1.weight"].shape[1] for i in range(count)]
    widths.append(tensors[f"blocks.{count - 1}.conv1.weight"].shape[0])
    part, shared = tensors["linear.weight"].shape[1], tensors.get("embedding.weight")
    options: dict[str, Any] = {"widths": widths, "attention": attention}
    if shared is not None:
        options["label_width"] = shared.shape[1]
    beside = path.with_name(re.sub("^model=(G_ema|G)-", "model=D-", path.name))
    critic = sibling_state(beside, "state_dict") if beside != path and beside.is_file() else {}
    return Foreign(
        Part("biggan", tensors, channels=widths[-1], options=options),
        resolution=4 << count,
        image_channels=tensors["image.weight"].shape[0],
        latent_dim=part * (count + 1),
        num_classes=0 if shared is None else shared.shape[0],
        discriminator=discriminator(critic) if critic else None,
        notes=[f"The discriminator is read from {beside.name}."] if critic else [],
    )


def discriminator(given: Mapping[str, Tensor]) -> Part:
    """Return a discriminator of ours from the state dict of StudioGAN's ``big_resnet``, with projection or none."""
    state = baked(given)
    place, attention = _numbered(state)
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.0\.conv2d(\d)\.(.+)", name):
            layer = ["shortcut", "conv1", "conv2"][int(match[2])]
            tensors[f"blocks.{place[int(match[1])]}.{layer}.{match[3]}"] = value
        elif match := re.fullmatch(r"blocks\.\d+\.0\.(?:conv1x1_(\w+)\.weight|sigma)", name):
            tensors["attention.gamma" if match[1] is None else f"attention.{_ATTENTION[match[1]]}.weight"] = value
        elif match := re.fullmatch(r"(linear1|embedding)\.(weight|bias)", name):
            tensors[f"{'linear' if match[1] == 'linear1' else 'embedding'}.{match[2]}"] = value
        else:
            raise KeyError(name)
    widths = [tensors[f"blocks.{i}.conv2.weight"].shape[0] for i in range(len(place))]
    return Part("biggan", tensors, channels=widths[0], options={"widths": widths, "attention": attention})


def studio_state(content: Any) -> dict[str, Tensor]:
    """Return the state dict of a file of StudioGAN."""
    return state_dict(content.get("state_dict", content)) if isinstance(content, Mapping) else {}


def _numbered(state: Mapping[str, Tensor]) -> tuple[dict[int, int], int]:
    """Return the number of each block of StudioGAN's list, and after how many the attention is (0 for none)."""
    places = sorted({int(match[1]) for name in state if (match := re.match(r"blocks\.(\d+)\.", name))})
    attention = next((i for i in places if f"blocks.{i}.0.sigma" in state), 0)
    return {place: i for i, place in enumerate(p for p in places if p != attention or not attention)}, attention


def _normed(name: str) -> str:
    layer, _, kind = name.partition(".")
    return f"{_NORM[layer]}.{kind}" if kind else _stored(name)


def _stored(name: str) -> str:
    return {"running_means": "means", "running_vars": "variances"}.get(
        name, {"running_mean": "means", "running_var": "variances"}.get(name, name)
    )


def _as_rows(tensors: dict[str, Tensor]) -> None:
    for name in tensors:
        if name.endswith((".means", ".variances")):
            tensors[name] = tensors[name][None]
