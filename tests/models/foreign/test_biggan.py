"""BigGAN of StudioGAN and BigGAN-deep: state dicts with torch's own spectral norm give what the paper's text says."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import spectral_norm

from orthogan.models.open import load_discriminator, load_generator


class Layers:
    """Layers with spectral norm by the authors' names, and their state dict."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.found: dict[str, nn.Module] = {}
        self.state: dict[str, Tensor] = {}

    def add(self, name: str, layer: nn.Module) -> nn.Module:
        layer = spectral_norm(layer, n_power_iterations=20)
        with torch.no_grad():
            for key, value in layer.named_parameters():
                value.normal_(std=0.3) if key == "bias" else value.mul_(1.7)
        width = layer.weight.shape[1]  # pyright: ignore
        shape = (1, width, 4, 4) if isinstance(layer, nn.Conv2d) else (1, width)
        layer(torch.zeros(1, dtype=torch.int64) if isinstance(layer, nn.Embedding) else torch.zeros(shape))
        self.found[name] = layer.double().eval()
        self.state |= {f"{name}.{key}": value.detach().float() for key, value in layer.state_dict().items()}
        return layer

    def conv(self, name: str, a: int, b: int, size: int, *, bias: bool = True) -> None:
        self.add(name, nn.Conv2d(a, b, size, padding=size // 2, bias=bias))

    def value(self, name: str, value: Tensor) -> Tensor:
        self.state[name] = value
        return value.double()

    def __call__(self, name: str, x: Tensor) -> Tensor:
        return self.found[name](x)


def attend(layers: Layers, names: list[str], gamma: Tensor, x: Tensor) -> Tensor:
    """Every pixel looks at the pixels of the map that was pooled over 2x2."""
    theta, phi, g, out = names
    key = functional.max_pool2d(layers(phi, x), 2)
    value = functional.max_pool2d(layers(g, x), 2)
    scores = torch.einsum("nchw,ncij->nhwij", layers(theta, x), key).flatten(3).softmax(-1)
    seen = torch.einsum("nhwk,nck->nchw", scores, value.flatten(2))
    return x + gamma * layers(out, seen)


def attention_layers(layers: Layers, names: list[str], width: int) -> None:
    for name, (a, b) in zip(
        names, ((width, width // 8),) * 2 + ((width, width // 2), (width // 2, width)), strict=True
    ):
        layers.conv(name, a, b, 1, bias=False)


def statistics(layers: Layers, names: tuple[str, str], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return layers.value(names[0], 0.3 * torch.randn(shape)), layers.value(names[1], 0.3 + torch.rand(shape))


def normed(x: Tensor, mean: Tensor, variance: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    x = (x - mean[:, None, None]) / torch.sqrt(variance[:, None, None] + 1e-4)
    return functional.relu(x * gain.reshape(-1, x.shape[1], 1, 1) + bias.reshape(-1, x.shape[1], 1, 1))


def mixed(rows: Tensor, share: dict[int, float]) -> Tensor:
    return sum(rows[row] * part for row, part in share.items())  # pyright: ignore


def doubled(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_biggan_deep(tmp_path: Path) -> None:
    layers, z_dim, classes, rows, at = Layers(0), 6, 5, 6, 2
    widths = [16, 16, 16, 16, 8, 8, 8]  # 32 px, attention before the third block
    condition = 2 * z_dim
    table = layers.value("embeddings.weight", torch.randn(z_dim, classes))
    layers.add("generator.gen_z", nn.Linear(condition, 16 * widths[0]))
    norms: dict[str, Any] = {}
    place, names = 0, []
    for i in range(6):
        if i == at:
            gamma = layers.value(f"generator.layers.{place}.gamma", torch.tensor([0.7]))
            names = [f"generator.layers.{place}.snconv1x1_{part}" for part in ("theta", "phi", "g", "o_conv")]
            attention_layers(layers, names, widths[i])
            place += 1
        inner = widths[i] // 4
        for j, (a, b, size) in enumerate(
            ((widths[i], inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, widths[i + 1], 1))
        ):
            block = f"generator.layers.{place}"
            norms[f"{i}.{j}"] = statistics(
                layers, (f"{block}.bn_{j}.running_means", f"{block}.bn_{j}.running_vars"), (rows, a)
            )
            layers.add(f"{block}.bn_{j}.scale", nn.Linear(condition, a, bias=False))
            layers.add(f"{block}.bn_{j}.offset", nn.Linear(condition, a, bias=False))
            layers.conv(f"{block}.conv_{j}", a, b, size)
        place += 1
    last = statistics(layers, ("generator.bn.running_means", "generator.bn.running_vars"), (rows, 8))
    gain, bias = (layers.value(f"generator.bn.{name}", torch.randn(8)) for name in ("weight", "bias"))
    layers.conv("generator.conv_to_rgb", 8, 8, 3)
    torch.save(layers.state, tmp_path / "pytorch_model.bin")
    generator = load_generator(tmp_path / "pytorch_model.bin")
    assert (generator.latent_dim, generator.num_classes, generator.resolution) == (z_dim, classes, 32)

    z, y = torch.randn(2, z_dim, generator=torch.Generator().manual_seed(1)), torch.tensor([3, 0])
    for truncation in (1.0, 0.4, 0.46):
        where = truncation * (rows - 1)
        share = {round(where): 1.0}
        if abs(where - round(where)) > 1e-9:  # the authors' code gives each of the two rows the weight of the other
            share = {math.floor(where): where % 1, math.floor(where) + 1: 1 - where % 1}
        pick = partial(mixed, share=share)
        c = torch.cat([z.double(), table.T[y]], 1)
        x = layers("generator.gen_z", c).view(2, 4, 4, 16).permute(0, 3, 1, 2)
        for i in range(6):
            block = f"generator.layers.{i + (i >= at)}"
            if i == at:
                x = attend(layers, names, gamma, x)
            h = x
            for j in range(4):
                scale, offset = layers(f"{block}.bn_{j}.scale", c), layers(f"{block}.bn_{j}.offset", c)
                mean, variance = map(pick, norms[f"{i}.{j}"])
                h = normed(h, mean, variance, 1 + scale, offset)
                h = layers(f"{block}.conv_{j}", doubled(h) if j == 1 and i % 2 else h)
            x = h + (doubled(x[:, : h.shape[1]]) if i % 2 else x[:, : h.shape[1]])
        x = normed(x, *map(pick, last), gain, bias)
        want = layers("generator.conv_to_rgb", x)[:, :3].tanh()
        generator.truncation = truncation
        torch.testing.assert_close(generator(z, y).double(), want, rtol=1e-4, atol=2e-6)
    drawn = generator.sample_latent(2000, seed=0)
    assert float(drawn.abs().max()) <= 2 * generator.truncation
    # the variance of a normal within [-2, 2] is 0.774
    assert float((drawn / generator.truncation).var()) == pytest.approx(0.774, abs=0.02)


@pytest.mark.parametrize("classes", [0, 4])
def test_biggan_of_studiogan(tmp_path: Path, classes: int) -> None:
    layers, part, label = Layers(1), 3, 5 if classes else 0
    widths = [16, 16, 8, 8]
    layers.add("linear0", nn.Linear(part, 16 * 16))
    table = layers.value("shared.weight", torch.randn(classes, label)) if classes else None
    norms: dict[str, Any] = {}
    at = {0: 0, 1: 2, 2: 3}  # the attention is the second of the list
    names = [f"blocks.1.0.conv1x1_{name}" for name in ("theta", "phi", "g", "attn")]
    attention_layers(layers, names, 16)
    sigma = layers.value("blocks.1.0.sigma", torch.tensor([0.7]))
    for i in range(3):
        block, a, b = f"blocks.{at[i]}.0", widths[i], widths[i + 1]
        for j, width in ((1, a), (2, b)):
            bn = f"{block}.bn{j}"
            norms[bn] = statistics(layers, (f"{bn}.bn.running_mean", f"{bn}.bn.running_var"), (width,))
            layers.state[f"{bn}.bn.num_batches_tracked"] = torch.tensor(3)
            layers.add(f"{bn}.gain", nn.Linear(part + label, width, bias=False))
            layers.add(f"{bn}.bias", nn.Linear(part + label, width, bias=False))
        layers.conv(f"{block}.conv2d0", a, b, 1)
        layers.conv(f"{block}.conv2d1", a, b, 3)
        layers.conv(f"{block}.conv2d2", b, b, 3)
    last = statistics(layers, ("bn4.running_mean", "bn4.running_var"), (8,))
    gain, bias = (layers.value(f"bn4.{name}", torch.randn(8)) for name in ("weight", "bias"))
    layers.conv("conv2d5", 8, 3, 3)
    file = tmp_path / "model=G_ema-best-weights-step=5.pth"
    torch.save({"state_dict": layers.state, "step": 5}, file)
    generator = load_generator(file)
    assert (generator.latent_dim, generator.num_classes, generator.resolution) == (4 * part, classes, 32)

    z, y = generator.sample_latent(2, seed=1), torch.tensor([3, 0]) if classes else None
    first, *others = z.double().split(part, 1)
    shared = [] if table is None else [table[y]]
    x = layers("linear0", first).view(2, 16, 4, 4)
    for i in range(3):
        block, c = f"blocks.{at[i]}.0", torch.cat([*shared, others[i]], 1)
        norm = {j: (layers(f"{block}.bn{j}.gain", c), layers(f"{block}.bn{j}.bias", c)) for j in (1, 2)}
        h = doubled(normed(x, *norms[f"{block}.bn1"], 1 + norm[1][0], norm[1][1]))
        h = normed(layers(f"{block}.conv2d1", h), *norms[f"{block}.bn2"], 1 + norm[2][0], norm[2][1])
        x = layers(f"{block}.conv2d2", h) + layers(f"{block}.conv2d0", doubled(x))
        x = attend(layers, names, sigma, x) if i == 0 else x
    want = layers("conv2d5", normed(x, *last, gain, bias)).tanh()
    torch.testing.assert_close(generator(z, y).double(), want, rtol=1e-4, atol=2e-6)


def test_the_discriminator_of_studiogan(tmp_path: Path) -> None:
    layers, widths, at = Layers(2), [8, 8, 8, 8], {0: 0, 1: 2, 2: 3, 3: 4}
    names = [f"blocks.1.0.conv1x1_{name}" for name in ("theta", "phi", "g", "attn")]
    attention_layers(layers, names, 8)
    sigma = layers.value("blocks.1.0.sigma", torch.tensor([0.7]))
    for i, (a, b) in enumerate(zip([3, *widths], widths, strict=False)):
        block = f"blocks.{at[i]}.0"
        if i < 2:
            layers.conv(f"{block}.conv2d0", a, b, 1)
        layers.conv(f"{block}.conv2d1", a, b, 3)
        layers.conv(f"{block}.conv2d2", b, b, 3)
    layers.add("linear1", nn.Linear(8, 1))
    layers.add("embedding", nn.Embedding(4, 8))
    write_generator(tmp_path / "model=G-best-weights-step=5.pth")
    torch.save({"state_dict": layers.state}, tmp_path / "model=D-best-weights-step=5.pth")
    net = load_discriminator(tmp_path / "model=G-best-weights-step=5.pth")
    images, y = torch.randn(3, 3, 32, 32), torch.tensor([3, 0, 1])
    x = images.double()
    for i in range(4):
        block = f"blocks.{at[i]}.0"
        h = layers(f"{block}.conv2d1", x if i == 0 else functional.relu(x))
        h = layers(f"{block}.conv2d2", functional.relu(h))
        h = h + (layers(f"{block}.conv2d0", x) if i < 2 else x)
        x = functional.avg_pool2d(h, 2) if i < 2 else h
        x = attend(layers, names, sigma, x) if i == 0 else x
    h = functional.relu(x).sum((2, 3))
    want = layers("linear1", h)[:, 0] + (h * layers("embedding", y)).sum(1)
    torch.testing.assert_close(net(images, y).double(), want, rtol=1e-4, atol=1e-4)


def write_generator(file: Path) -> None:
    """The smallest generator of StudioGAN with 4 classes, of zeros."""
    state = {"linear0.weight": torch.zeros(16, 1), "linear0.bias": torch.zeros(16), "shared.weight": torch.zeros(4, 1)}
    for i in range(3):
        for name in ("bn1", "bn2"):
            at = f"blocks.{i}.0.{name}"
            state |= {f"{at}.bn.running_mean": torch.zeros(1), f"{at}.bn.running_var": torch.ones(1)}
            state |= {f"{at}.gain.weight": torch.zeros(1, 2), f"{at}.bias.weight": torch.zeros(1, 2)}
        for name, size in (("conv2d0", 1), ("conv2d1", 3), ("conv2d2", 3)):
            state[f"blocks.{i}.0.{name}.weight"] = torch.zeros(1, 1, size, size)
            state[f"blocks.{i}.0.{name}.bias"] = torch.zeros(1)
    state |= {f"bn4.{name}": torch.ones(1) for name in ("weight", "bias", "running_mean", "running_var")}
    state |= {"conv2d5.weight": torch.zeros(3, 1, 3, 3), "conv2d5.bias": torch.zeros(3)}
    torch.save({"state_dict": state}, file)
