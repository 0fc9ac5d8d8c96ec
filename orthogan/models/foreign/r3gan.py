"""R3GAN as its authors' code pickles it: a dict with G, D and G_ema, plain modules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from orthogan.models.foreign.layout import Foreign, Part, layout
from orthogan.models.foreign.objects import PickledModule
from orthogan.models.foreign.stylegan2_ada import networks

_LAYERS = {
    "LinearLayer1.Layer.weight": "conv1.weight",
    "LinearLayer2.Layer.weight": "conv2.weight",
    "LinearLayer3.Layer.weight": "conv3.weight",
    "NonLinearity1.Bias": "bias1",
    "NonLinearity2.Bias": "bias2",
}
_TOP = {"Basis": "basis", "Basis.weight": "basis.weight", "LinearLayer.weight": "linear.weight"}


@layout("r3gan", about="R3GAN (brownvc)", source="https://github.com/brownvc/R3GAN")
def read(content: Any, path: Path) -> Foreign | None:
    """Recognize a pickle with a generator that begins with a basis of 4x4 maps."""
    if (nets := networks(content)) is None or "Model.MainLayers.0.Layers.0.Basis" not in nets["G_ema"].state():
        return None
    part, fields = part_of(nets["G_ema"], critic=False), nets["G_ema"].fields
    classes = int(fields.get("c_dim") or 0)
    label = part.options["label_width"] if classes else 0
    return Foreign(
        part,
        resolution=4 << (len(part.options["widths"]) - 1),
        image_channels=part.tensors["image.weight"].shape[0],
        latent_dim=part.tensors["linear.weight"].shape[1] - label,
        num_classes=classes,
        raw=part_of(nets["G"], critic=False) if "G" in nets else None,
        discriminator=part_of(nets["D"], critic=True) if "D" in nets else None,
    )


def part_of(net: PickledModule, *, critic: bool) -> Part:
    """Return a generator or discriminator of ours from theirs."""
    tensors: dict[str, Tensor] = {}
    state = {name.removeprefix("Model."): value for name, value in net.state().items()}
    count = len({name.split(".")[1] for name in state if name.startswith("MainLayers.")})
    sizes = {}
    for name, value in state.items():
        if name.endswith("Kernel"):
            continue
        if name == "EmbeddingLayer.weight":
            tensors["embedding.weight"] = value.mT
        elif name in ("AggregationLayer.Layer.weight", "ExtractionLayer.Layer.weight"):
            tensors["image.weight"] = value
        else:
            match = re.fullmatch(r"MainLayers\.(\d+)\.Layers\.(\d+)\.(.+)", name)
            if match is None:
                raise KeyError(name)
            stage, number, rest = int(match[1]), int(match[2]), match[3]
            if rest in _LAYERS:  # in a generator the transition comes before the blocks, in a discriminator after them
                place = f"stages.{stage}.{number - (not critic)}"
                tensors[f"{place}.{_LAYERS[rest]}"] = value
                sizes[stage] = max(sizes.get(stage, 0), number + critic)
            elif rest == "LinearLayer.Layer.weight":
                tensors[f"transitions.{stage - (not critic)}.weight"] = value
            else:
                tensors[_TOP[rest]] = value
    first = [f"stages.{i}.0" for i in range(count)]
    inner, outer = tensors[f"{first[0]}.conv1.weight"].shape[:2]
    plan: dict[str, list[int]] = {
        "widths": [tensors[f"{place}.conv1.weight"].shape[1] for place in first],
        "groups": [
            tensors[f"{place}.conv2.weight"].shape[0] // tensors[f"{place}.conv2.weight"].shape[1] for place in first
        ],
        "blocks": [sizes[i] for i in range(count)],
    }
    options: dict[str, Any] = {name: found[::-1] if critic else found for name, found in plan.items()}
    options |= {"expansion": inner // outer, "kernel": tensors[f"{first[0]}.conv2.weight"].shape[-1]}
    if (label := tensors.get("embedding.weight")) is not None:
        options["label_width"] = label.shape[1]
    return Part("r3gan-official", tensors, options=options)
