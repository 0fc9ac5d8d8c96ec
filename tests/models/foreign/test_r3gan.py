"""R3GAN files of its authors: plain pickled modules of random tensors give what the paper's text says."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.models.open import open_model
from tests.fixtures import nvidia

WIDTHS, GROUPS, BLOCKS, Z, LABEL = (12, 8, 8), (3, 2, 4), (1, 2, 1), 6, 5


class Plain(nvidia.Persistent):
    """A module that is pickled as any other: a class, and a state."""

    def __reduce__(self) -> tuple[Any, ...]:
        state = {**self.fields, "_modules": self.children}
        return nvidia.EasyDict, (), state


def tree(tensors: dict[str, Tensor], **fields: Any) -> Plain:
    root = Plain("Generator", **fields)
    for name, value in tensors.items():
        *path, last = name.split(".")
        at = root
        for part in path:
            at = at.children.setdefault(part, Plain("Layer"))
        at.fields["_buffers" if last == "Kernel" else "_parameters"][last] = value
    return root


def tensors_of(classes: int, *, critic: bool) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(critic)

    def draw(*shape: int, scale: float | None = None) -> Tensor:
        scale = float(torch.tensor(shape[1:]).prod()) ** -0.5 if scale is None else scale
        return torch.randn(*shape, generator=random) * scale

    found: dict[str, Tensor] = OrderedDict()
    plan = list(zip(WIDTHS, GROUPS, BLOCKS, strict=True))[:: -1 if critic else 1]
    if classes:
        found["EmbeddingLayer.weight"] = draw(LABEL, classes)
    found["ExtractionLayer.Layer.weight" if critic else "AggregationLayer.Layer.weight"] = (
        draw(8, 3, 1, 1) if critic else draw(3, 8, 1, 1)
    )
    for stage, (width, groups, blocks) in enumerate(plan):
        at = f"MainLayers.{stage}.Layers"
        move = f"{at}.{blocks if critic else 0}"
        other = [*WIDTHS][::-1][min(stage + 1, 2)] if critic else WIDTHS[max(0, stage - 1)]
        if stage == (len(plan) - 1 if critic else 0):
            end = (LABEL if classes else 1, width) if critic else (width, Z + (LABEL if classes else 0))
            found[f"{move}.LinearLayer.weight"] = draw(*end)
            found[f"{move}.Basis{'.weight' * critic}"] = draw(width, 1, 4, 4)[:, :, :, :] if critic else draw(width, 4, 4)
        else:
            found[f"{move}.Resampler.Kernel"] = torch.ones(4, 4)
            if other != width:
                ends = (other, width) if critic else (width, other)
                found[f"{move}.LinearLayer.Layer.weight"] = draw(*ends, 1, 1)
        for i in range(blocks):
            block = f"{at}.{i + (not critic)}"
            found[f"{block}.LinearLayer1.Layer.weight"] = draw(2 * width, width, 1, 1)
            found[f"{block}.LinearLayer2.Layer.weight"] = draw(2 * width, 2 * width // groups, 3, 3)
            found[f"{block}.LinearLayer3.Layer.weight"] = draw(width, 2 * width, 1, 1)
            for j in (1, 2):
                found[f"{block}.NonLinearity{j}.Bias"] = draw(2 * width, scale=0.3)
    return OrderedDict((f"Model.{name}", value) for name, value in found.items())


def run(t: dict[str, Tensor], x: Tensor, labels: Tensor | None, *, critic: bool) -> Tensor:
    """The networks of section 4 of the paper; resampling is bilinear, with zeros beyond the edges."""
    t = {name.removeprefix("Model."): value.double() for name, value in t.items()}
    label = None if labels is None else labels.double() @ t["EmbeddingLayer.weight"].T
    plan = list(zip(GROUPS, BLOCKS, strict=True))[:: -1 if critic else 1]
    h = functional.conv2d(x, t["ExtractionLayer.Layer.weight"]) if critic else x
    if not critic and label is not None:
        h = torch.cat([x, label], 1)
    for stage, (groups, blocks) in enumerate(plan):
        at = f"MainLayers.{stage}.Layers"
        move = f"{at}.{blocks if critic else 0}"

        def moved(h: Tensor, move: str = move) -> Tensor:
            change = t.get(f"{move}.LinearLayer.Layer.weight")
            if f"{move}.LinearLayer.weight" in t:
                matrix = t[f"{move}.LinearLayer.weight"]
                if critic:
                    return (h * t[f"{move}.Basis.weight"][:, 0]).sum((2, 3)) @ matrix.T
                return (h @ matrix.T)[:, :, None, None] * t[f"{move}.Basis"]
            if critic:
                h = functional.avg_pool2d(functional.pad(h, (1, 1, 1, 1)), 3, 1) * 9  # a sum; the filter is its square
                spread = functional.pad(h, (0, 0, 0, 0))
                del spread
            return h if change is None else functional.conv2d(h, change)

        if not critic:
            h = moved(h)
            if stage:
                h = bilinear(h)
        for i in range(blocks):
            block = f"{at}.{i + (not critic)}"
            inner = functional.conv2d(h, t[f"{block}.LinearLayer1.Layer.weight"], t[f"{block}.NonLinearity1.Bias"])
            inner = functional.leaky_relu(inner, 0.2)
            weight, bias = t[f"{block}.LinearLayer2.Layer.weight"], t[f"{block}.NonLinearity2.Bias"]
            inner = functional.leaky_relu(functional.conv2d(inner, weight, bias, padding=1, groups=groups), 0.2)
            h = h + functional.conv2d(inner, t[f"{block}.LinearLayer3.Layer.weight"])
        if critic:
            h = moved(h)
    return h
