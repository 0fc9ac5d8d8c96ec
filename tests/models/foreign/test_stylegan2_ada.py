"""StyleGAN2 files of NVIDIA's PyTorch code: a file of random tensors gives what a re-derivation of the paper gives."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import Tensor

from orthogan.errors import UserError
from orthogan.models.build import build_discriminator, build_generator
from orthogan.models.imported import import_model
from orthogan.models.open import open_model
from orthogan.models.warm_start import WarmStart
from tests.fixtures import nvidia

FIR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
Z, W, SIDES, WIDTHS = 6, 5, (4, 8, 16), (8, 8, 4)
CRITIC_FIELDS = {
    "b16": {"architecture": "resnet"},
    "*.conv0": {"activation": "lrelu", "conv_clamp": None},
    "mapping": {"num_layers": 2, "w_dim": 5},
    "*.fc0": {"activation": "lrelu", "bias_gain": 0.1},
}


def tensors_of_generator(classes: int, architecture: str = "skip") -> dict[str, Tensor]:
    """Random tensors under the authors' names, for 16 px and a mapping network of two layers with lr 0.1."""
    random = torch.Generator().manual_seed(classes)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    found = {"mapping.w_avg": draw(W)}
    if classes:
        found |= {"mapping.embed.weight": draw(7, classes), "mapping.embed.bias": draw(7)}
    for i, (a, b) in enumerate([(Z + (7 if classes else 0), 9), (9, W)]):
        found |= {f"mapping.fc{i}.weight": 10 * draw(b, a), f"mapping.fc{i}.bias": draw(b)}
    found["synthesis.b4.const"] = draw(WIDTHS[0], 4, 4)
    for i, (side, width) in enumerate(zip(SIDES, WIDTHS, strict=True)):
        for name in ("conv0", "conv1", "torgb")[i == 0 :]:
            inputs, outputs = WIDTHS[i - (name == "conv0")], 3 if name == "torgb" else width
            place, kernel = f"synthesis.b{side}.{name}", 1 if name == "torgb" else 3
            found |= {f"{place}.affine.weight": draw(inputs, W), f"{place}.affine.bias": 1 + draw(inputs)}
            found |= {f"{place}.weight": draw(outputs, inputs, kernel, kernel), f"{place}.bias": draw(outputs)}
            if name != "torgb":
                found |= {f"{place}.noise_const": draw(side, side), f"{place}.noise_strength": draw(1)[0]}
                found[f"{place}.resample_filter"] = torch.tensor(FIR).float()
        if architecture == "resnet" and i:
            found[f"synthesis.b{side}.skip.weight"] = draw(width, WIDTHS[i - 1], 1, 1)
    return found


def network(tensors: dict[str, Tensor], classes: int, *, clamp: float | None = None, **more: Any) -> nvidia.Persistent:
    conv = {"activation": "lrelu", "use_noise": True, "conv_clamp": clamp} | more
    fields = {
        "": {"z_dim": Z, "c_dim": classes, "w_dim": W, "img_resolution": 16, "img_channels": 3},
        "mapping": {"num_layers": 2, "w_dim": W},
        "*.fc0": {"activation": "lrelu", "bias_gain": 0.1},
        "*.b8": {"architecture": "skip"},
        "*.conv0": conv,
        "*.conv1": conv,
    }
    return nvidia.tree(tensors, fields, z_dim=Z, synthesis_kwargs=nvidia.EasyDict(channel_base=64))


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean() + 1e-8)


def dense(t: dict[str, np.ndarray], name: str, x: np.ndarray, rate: float = 1.0) -> np.ndarray:
    weight = t[f"{name}.weight"]
    return weight @ x * rate / math.sqrt(weight.shape[1]) + rate * t[f"{name}.bias"]


def spread(x: np.ndarray) -> np.ndarray:
    """Zeros between the pixels."""
    found = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2]))
    found[:, ::2, ::2] = x
    return found


def fir(x: np.ndarray, low: int, high: int, gain: float = 1.0) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (low, high), (low, high)))
    return np.stack([convolve2d(part, FIR * gain, "valid") for part in padded])


def mapped(t: dict[str, np.ndarray], z: np.ndarray | None, label: np.ndarray | None) -> np.ndarray:
    parts = [] if z is None else [unit(z)]
    if label is not None:
        parts.append(unit(dense(t, "mapping.embed", label)))
    h = np.concatenate(parts)
    for i in range(2):
        h = relu(dense(t, f"mapping.fc{i}", h, 0.1))
    return h


def convolved(t: dict[str, np.ndarray], name: str, x: np.ndarray, w: np.ndarray, up: bool) -> np.ndarray:
    """A weight of this sample's own, made from the style and scaled to length one, and then loops."""
    style = dense(t, f"{name}.affine", w)
    weight = t[f"{name}.weight"] * style[None, :, None, None]
    weight = weight / np.sqrt((weight**2).sum((1, 2, 3), keepdims=True) + 1e-8)
    if up:
        whole = [sum(convolve2d(a, b) for a, b in zip(spread(x), row, strict=True)) for row in weight]
        return fir(np.stack(whole)[:, :-1, :-1], 1, 1, 4)
    same = [[convolve2d(a, b[::-1, ::-1], "same") for a, b in zip(x, row, strict=True)] for row in weight]
    return np.array(same).sum(1)


def image_of(tensors: dict[str, Tensor], w: np.ndarray, clamp: float = np.inf, noise: float = 1.0) -> np.ndarray:
    t = {name: value.double().numpy() for name, value in tensors.items()}
    x, image = t["synthesis.b4.const"], None
    for i, side in enumerate(SIDES):
        for name in ("conv0", "conv1")[i == 0 :]:
            place = f"synthesis.b{side}.{name}"
            x = convolved(t, place, x, w, up=name == "conv0")
            x = x + noise * t[f"{place}.noise_const"] * t[f"{place}.noise_strength"]
            x = np.clip(relu(x + t[f"{place}.bias"][:, None, None]), -clamp, clamp)
        place = f"synthesis.b{side}.torgb"
        style = dense(t, f"{place}.affine", w) / math.sqrt(len(x))
        rgb = np.tensordot(t[f"{place}.weight"][:, :, 0, 0] * style, x, 1) + t[f"{place}.bias"][:, None, None]
        rgb = np.clip(rgb, -clamp, clamp)
        image = rgb if image is None else fir(spread(image), 2, 1, 4) + rgb
    assert image is not None
    return image


@pytest.mark.parametrize(("classes", "clamp"), [(0, None), (3, 1.5)])
def test_images_are_those_of_the_paper(tmp_path: Path, classes: int, clamp: float | None) -> None:
    tensors = tensors_of_generator(classes)
    net = network(tensors, classes, clamp=clamp)
    file = nvidia.write(tmp_path / "net.pkl", {"G_ema": net, "G": net, "training_set_kwargs": nvidia.EasyDict(a=1)})
    generator = open_model(file).generator
    z, y = generator.sample_latent(2, seed=1), torch.tensor([2, 0]) if classes else None
    labels = np.eye(classes)[[2, 0]] if classes else [None, None]
    t = {name: value.double().numpy() for name, value in tensors.items()}
    ws = np.stack([mapped(t, a, label) for a, label in zip(z.double().numpy(), labels, strict=True)])
    limit = np.inf if clamp is None else clamp
    want = np.stack([image_of(tensors, w, limit) for w in ws])
    np.testing.assert_allclose(generator(z, y), want, rtol=1e-4, atol=1e-5 * want.std())
    # the trick of truncation, on some styles only, and the modes of noise
    mixed = generator.truncate(generator.mapping(z, y), 0.5, cutoff=2)
    np.testing.assert_allclose(mixed[:, 0], t["mapping.w_avg"] + 0.5 * (ws - t["mapping.w_avg"]), rtol=1e-4)
    np.testing.assert_allclose(mixed[:, 2], ws, rtol=1e-4)
    generator.noise_mode = "none"
    quiet = np.stack([image_of(tensors, w, limit, noise=0.0) for w in ws])
    np.testing.assert_allclose(generator(z, y), quiet, rtol=1e-4, atol=1e-5 * want.std())
    generator.noise_mode = "random"
    drawn = generator(z, y)
    assert torch.equal(drawn, generator(z, y))
    assert not np.allclose(drawn, want, atol=1e-2)
    # what projection and training need
    twin = copy.deepcopy(generator).requires_grad_(True)
    start = z.clone().requires_grad_(True)
    twin(start, y).square().sum().backward()
    assert float(start.grad.abs().min()) > 0
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in twin.parameters())


def tensors_of_discriminator(classes: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(5)

    def layer(name: str, outputs: int, *inputs: int, bias: bool = True) -> dict[str, Tensor]:
        found = {f"{name}.weight": torch.randn(outputs, *inputs, generator=random)}
        return found | ({f"{name}.bias": torch.randn(outputs, generator=random)} if bias else {})

    found = layer("b16.fromrgb", 4, 3, 1, 1)
    for side, a, b in ((16, 4, 8), (8, 8, 8)):
        found |= layer(f"b{side}.conv0", a, a, 3, 3) | layer(f"b{side}.conv1", b, a, 3, 3)
        found |= layer(f"b{side}.skip", b, a, 1, 1, bias=False)
    found |= layer("b4.conv", 8, 9, 3, 3) | layer("b4.fc", 8, 128) | layer("b4.out", 5 if classes else 1, 8)
    if classes:
        found |= layer("mapping.embed", 5, classes)
        found |= {k: 10 * v for k, v in (layer("mapping.fc0", 9, 5) | layer("mapping.fc1", 5, 9)).items()}
    return found


def logits_of(tensors: dict[str, Tensor], images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    t = {name: value.double().numpy() for name, value in tensors.items()}

    def conv(name: str, x: np.ndarray, mode: str = "same") -> np.ndarray:
        weight = t[f"{name}.weight"] / math.sqrt(np.prod(t[f"{name}.weight"].shape[1:]))
        rows = [sum(convolve2d(a, b[::-1, ::-1], mode) for a, b in zip(x, row, strict=True)) for row in weight]
        bias = t.get(f"{name}.bias", np.zeros(len(weight)))
        return np.stack(rows) + bias[:, None, None]

    maps = []
    for image in images:
        x = relu(conv("b16.fromrgb", image))
        for side in (16, 8):
            short = conv(f"b{side}.skip", fir(x, 1, 1)[:, ::2, ::2])
            h = relu(conv(f"b{side}.conv0", x))
            h = relu(conv(f"b{side}.conv1", fir(h, 2, 2), "valid")[:, ::2, ::2])
            x = (h + short) * math.sqrt(0.5)
        maps.append(x)
    maps, found = np.stack(maps), []
    for i, x in enumerate(maps):
        others = maps[i % 2 :: 2]  # of eight images, four by four: every second one
        extra = np.sqrt(others.var(0) + 1e-8).mean()
        h = relu(conv("b4.conv", np.concatenate([x, np.full((1, 4, 4), extra)])))
        h = dense(t, "b4.out", relu(dense(t, "b4.fc", h.reshape(-1))))
        if labels is not None:
            h = (h * mapped(t, None, labels[i])).sum(keepdims=True) / math.sqrt(5)
        found.append(h[0])
    return np.array(found)


@pytest.mark.parametrize("classes", [0, 3])
def test_logits_are_those_of_the_paper(tmp_path: Path, classes: int) -> None:
    tensors = tensors_of_discriminator(classes)
    critic = nvidia.tree(tensors, CRITIC_FIELDS | {"": {"c_dim": classes, "img_resolution": 16}})
    critic.children["b4"].children["mbstd"] = nvidia.Persistent("MinibatchStdLayer", group_size=4, num_channels=1)
    net = network(tensors_of_generator(classes), classes)
    opened = open_model(nvidia.write(tmp_path / "net.pkl", {"G_ema": net, "D": critic}))
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8) % classes if classes else None
    want = logits_of(tensors, images.double().numpy(), np.eye(classes)[y] if classes else None)
    np.testing.assert_allclose(opened.discriminator(images, y), want, rtol=1e-4, atol=1e-5)
    opened.discriminator.train()
    halves = torch.cat([images[:4], 9 * images[4:]])
    ys = None if y is None else y[:8]
    torch.testing.assert_close(  # in training, reals do not see the fakes behind them
        opened.discriminator(halves, ys)[:4], opened.discriminator(images, ys)[:4], rtol=1e-4, atol=1e-5
    )


def test_other_variants_are_refused_by_name(tmp_path: Path) -> None:
    tensors = tensors_of_generator(0)
    file = nvidia.write(tmp_path / "net.pkl", {"G_ema": network(tensors, 0, activation="swish")})
    with pytest.raises(UserError, match="activation 'swish'"):
        open_model(file)
    for name in tensors:
        if name.endswith("resample_filter"):
            tensors[name] = torch.ones(4, 4) / 16
    file = nvidia.write(tmp_path / "net.pkl", {"G_ema": network(tensors, 0)})
    with pytest.raises(UserError, match=r"another filter than \[1, 3, 3, 1\]"):
        open_model(file)


def test_an_imported_model_is_saved_opened_and_starts_a_training(tmp_path: Path) -> None:
    critic = nvidia.tree(tensors_of_discriminator(0), CRITIC_FIELDS | {"": {"c_dim": 0, "img_resolution": 16}})
    critic.children["b4"].children["mbstd"] = nvidia.Persistent("MinibatchStdLayer", group_size=4, num_channels=1)
    file = nvidia.write(tmp_path / "net.pkl", {"G_ema": network(tensors_of_generator(0), 0), "D": critic})
    opened = open_model(file)
    folder, _ = import_model(file, tmp_path / "net")
    again = open_model(folder)
    z = opened.generator.sample_latent(2, seed=1)
    assert torch.equal(again.generator(z), opened.generator(z))
    assert again.generator.spaces == ("z", "w", "w+", "s")
    config = again.config.model_copy(update={"model": again.config.model.model_copy(update={"init": str(folder)})})
    start = WarmStart(config, 0)
    net = build_generator(config, num_classes=0, start=start.generator).eval()
    judge = build_discriminator(config, num_classes=0, start=start.discriminator).eval()
    images = net(z)
    torch.testing.assert_close(images, opened.generator(z))
    torch.testing.assert_close(judge(images), opened.discriminator(images))
    judge(images).sum().backward()
    assert all(p.grad is not None for p in [*net.parameters(), *judge.parameters()])
