"""R3GAN files of its authors: plain pickled modules of random tensors give what section 4 of the paper says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from orthogan.models.open import open_model
from tests.fixtures import nvidia

# width, groups and blocks at 4, 8 and 16 px
PLAN = ((12, 3, 1), (8, 2, 2), (8, 4, 1))
Z, LABEL = 6, 5
FIR = torch.outer(*[torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8] * 2)


class Plain(nvidia.Persistent):
    """A module that is pickled as any other: a class and a state."""

    def __reduce__(self) -> tuple[Any, ...]:
        return nvidia.EasyDict, (), {**self.fields, "_modules": self.children}


def pickled(tensors: dict[str, Tensor], **fields: Any) -> Plain:
    root = Plain("Generator", **fields)
    for name, value in tensors.items():
        *path, last = name.split(".")
        at = root
        for part in ("Model", *path):
            at = at.children.setdefault(part, Plain("Layer"))
        at.fields["_buffers" if last == "Kernel" else "_parameters"][last] = value
    return root


class Draw:
    """Random tensors under the authors' names."""

    def __init__(self, seed: int) -> None:
        self.random, self.found = torch.Generator().manual_seed(seed), {}

    def add(self, name: str, *shape: int) -> None:
        size = max(1, torch.Size(shape[1:]).numel())
        self.found[name] = torch.randn(*shape, generator=self.random) * size**-0.5

    def blocks(self, at: str, first: int, width: int, groups: int, count: int) -> None:
        wide = 2 * width
        for i in range(first, first + count):
            self.add(f"{at}.{i}.LinearLayer1.Layer.weight", wide, width, 1, 1)
            self.add(f"{at}.{i}.LinearLayer2.Layer.weight", wide, wide // groups, 3, 3)
            self.add(f"{at}.{i}.LinearLayer3.Layer.weight", width, wide, 1, 1)
            self.add(f"{at}.{i}.NonLinearity1.Bias", wide)
            self.add(f"{at}.{i}.NonLinearity2.Bias", wide)


def generator_tensors(classes: int) -> dict[str, Tensor]:
    draw, before = Draw(1), 0
    for stage, (width, groups, count) in enumerate(PLAN):
        at = f"MainLayers.{stage}.Layers"
        if stage == 0:
            draw.add(f"{at}.0.Basis", width, 4, 4)
            draw.add(f"{at}.0.LinearLayer.weight", width, Z + LABEL * bool(classes))
        else:
            draw.found[f"{at}.0.Resampler.Kernel"] = FIR.float()
            if width != before:
                draw.add(f"{at}.0.LinearLayer.Layer.weight", width, before, 1, 1)
        draw.blocks(at, 1, width, groups, count)
        before = width
    draw.add("AggregationLayer.Layer.weight", 3, before, 1, 1)
    if classes:
        draw.add("EmbeddingLayer.weight", LABEL, classes)
    return draw.found


def critic_tensors(classes: int) -> dict[str, Tensor]:
    draw = Draw(2)
    for stage, (width, groups, count) in enumerate(PLAN[::-1]):
        at = f"MainLayers.{stage}.Layers"
        draw.blocks(at, 0, width, groups, count)
        if stage == len(PLAN) - 1:
            draw.add(f"{at}.{count}.Basis.weight", width, 1, 4, 4)
            draw.add(f"{at}.{count}.LinearLayer.weight", LABEL if classes else 1, width)
        elif (after := PLAN[::-1][stage + 1][0]) != width:
            draw.add(f"{at}.{count}.LinearLayer.Layer.weight", after, width, 1, 1)
    draw.add("ExtractionLayer.Layer.weight", PLAN[-1][0], 3, 1, 1)
    if classes:
        draw.add("EmbeddingLayer.weight", LABEL, classes)
    return draw.found


def conv(t: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = t.get(f"{name}.weight")
    return x if weight is None else torch.einsum("oi,nihw->nohw", weight[:, :, 0, 0], x)


def blocks(t: dict[str, Tensor], at: str, first: int, groups: int, count: int, x: Tensor) -> Tensor:
    for i in range(first, first + count):
        block = f"{at}.{i}"
        h = conv(t, f"{block}.LinearLayer1.Layer", x) + t[f"{block}.NonLinearity1.Bias"][:, None, None]
        parts = functional.leaky_relu(h, 0.2).chunk(groups, 1)
        kernels = t[f"{block}.LinearLayer2.Layer.weight"].chunk(groups)
        h = torch.cat([functional.conv2d(a, b, padding=1) for a, b in zip(parts, kernels, strict=True)], 1)
        h = functional.leaky_relu(h + t[f"{block}.NonLinearity2.Bias"][:, None, None], 0.2)
        x = x + conv(t, f"{block}.LinearLayer3.Layer", h)
    return x


def fir(x: Tensor, low: int, high: int) -> Tensor:
    padded = functional.pad(x, (low, high, low, high)).flatten(0, 1)[:, None]
    return functional.conv2d(padded, FIR[None, None])[:, 0].unflatten(0, x.shape[:2])


def images_of(t: dict[str, Tensor], z: Tensor, hot: Tensor | None) -> Tensor:
    x = z if hot is None else torch.cat([z, hot @ t["EmbeddingLayer.weight"].T], 1)
    for stage, (_, groups, count) in enumerate(PLAN):
        at = f"MainLayers.{stage}.Layers"
        if stage == 0:
            x = torch.einsum("chw,nc->nchw", t[f"{at}.0.Basis"], x @ t[f"{at}.0.LinearLayer.weight"].T)
        else:
            x = conv(t, f"{at}.0.LinearLayer.Layer", x)
            wide = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3], dtype=x.dtype)
            wide[:, :, ::2, ::2] = x
            x = 4 * fir(wide, 2, 1)
        x = blocks(t, at, 1, groups, count, x)
    return conv(t, "AggregationLayer.Layer", x)


def logits_of(t: dict[str, Tensor], x: Tensor, hot: Tensor | None) -> Tensor:
    x = conv(t, "ExtractionLayer.Layer", x)
    for stage, (_, groups, count) in enumerate(PLAN[::-1]):
        at = f"MainLayers.{stage}.Layers"
        x = blocks(t, at, 0, groups, count, x)
        if stage < len(PLAN) - 1:
            x = conv(t, f"{at}.{count}.LinearLayer.Layer", fir(x, 1, 1)[:, :, ::2, ::2])
    h = torch.einsum("nchw,chw->nc", x, t[f"{at}.{count}.Basis.weight"][:, 0])
    h = h @ t[f"{at}.{count}.LinearLayer.weight"].T
    return h[:, 0] if hot is None else (h * (hot @ t["EmbeddingLayer.weight"].T)).sum(1)


@pytest.mark.parametrize("classes", [0, 3])
def test_images_and_logits_are_those_of_the_paper(tmp_path: Path, classes: int) -> None:
    mine, theirs = generator_tensors(classes), critic_tensors(classes)
    content = {"G_ema": pickled(mine, c_dim=classes), "D": pickled(theirs, c_dim=classes), "augment_pipe": None}
    opened = open_model(nvidia.write(tmp_path / "net.pkl", content))
    generator, critic = opened.generator, opened.discriminator
    assert (generator.latent_dim, generator.resolution, generator.num_classes) == (Z, 16, classes)
    z, y = generator.sample_latent(3, seed=1), torch.tensor([2, 0, 1]) if classes else None
    hot = None if y is None else torch.eye(classes).double()[y]
    images = generator(z, y)
    want = images_of({name: value.double() for name, value in mine.items()}, z.double(), hot)
    torch.testing.assert_close(images.double(), want, rtol=1e-4, atol=1e-5)
    logits = logits_of({name: value.double() for name, value in theirs.items()}, want, hot)
    torch.testing.assert_close(critic(images, y).double(), logits, rtol=1e-4, atol=1e-4)
