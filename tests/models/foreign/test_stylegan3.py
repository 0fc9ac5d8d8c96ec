"""StyleGAN3 files of NVIDIA's code: a file of random tensors gives what scipy's filters give."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import signal, special
from torch import Tensor

from orthogan.models.families.official.stylegan3 import Signal
from orthogan.models.foreign.stylegan3 import OPTIONS
from orthogan.models.open import open_model
from orthogan.models.protocol import GENERATORS
from tests.fixtures import nvidia

Z, W, SIDE = 6, 5, 16
SETTINGS = {
    "t": {"num_layers": 5, "margin_size": 4, "channel_base": 64, "num_critical": 2},
    "r": {
        "num_layers": 4, "margin_size": 3, "channel_base": 48, "num_critical": 1, "conv_kernel": 1,
        "use_radial_filters": True, "output_scale": 0.5, "conv_clamp": 2.0,
    },
}  # fmt: skip


def plan(given: dict[str, Any]) -> list[Signal]:
    """The table of the layers, from the text of the paper (section 3.2)."""
    count, critical, margin = given["num_layers"], given["num_critical"], given["margin_size"]
    found = []
    for i in range(count + 1):
        share = min(i / (count - critical), 1)
        cutoff = 2 * (SIDE / 2 / 2) ** share
        stop = 2**2.1 * (SIDE / 2 * 2**0.3 / 2**2.1) ** share
        rate = 2 ** math.ceil(math.log2(min(2 * stop, SIDE)))
        side = SIDE if i >= count - 1 else rate + 2 * margin
        width = 3 if i == count else round(min(given["channel_base"] / 2 / cutoff, 512))
        found.append(Signal(side, rate, cutoff, max(stop, rate / 2) - cutoff, width))
    return found


def kernel(taps: int, at: Signal, rate: float, radial: bool) -> np.ndarray | None:
    if taps == 1:
        return None
    if not radial:
        return signal.firwin(taps, at.cutoff, width=2 * at.half_width, fs=rate)
    place = (np.arange(taps) - (taps - 1) / 2) / rate
    r = np.hypot(*np.meshgrid(place, place))
    window = np.kaiser(taps, signal.kaiser_beta(signal.kaiser_atten(taps, 2 * at.half_width / (rate / 2))))
    jinc = special.j1(2 * at.cutoff * np.pi * r) / r * np.outer(window, window)
    return jinc / jinc.sum()


def tensors_of(given: dict[str, Any], classes: int) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Random tensors under the authors' names, and what the layers do."""
    random = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    signals, count = plan(given), given["num_layers"]
    first = signals[0]
    found = {"mapping.w_avg": draw(W)}
    if classes:
        found |= {"mapping.embed.weight": draw(W, classes), "mapping.embed.bias": draw(W)}
    for i, width in enumerate((Z + W * bool(classes), W)):
        found |= {f"mapping.fc{i}.weight": 100 * draw(W, width), f"mapping.fc{i}.bias": draw(W)}
    at = "synthesis.input"
    found |= {f"{at}.weight": draw(first.channels, first.channels), f"{at}.affine.weight": draw(4, W)}
    found |= {f"{at}.affine.bias": draw(4), f"{at}.transform": torch.eye(3), f"{at}.freqs": 2 * draw(first.channels, 2)}
    found[f"{at}.phases"] = draw(first.channels)
    layers = []
    for i in range(count + 1):
        before, after, image = signals[max(0, i - 1)], signals[i], i == count
        size = 1 if image else given.get("conv_kernel", 3)
        at = f"synthesis.L{i}_{after.side}_{after.channels}"
        found |= {f"{at}.weight": draw(after.channels, before.channels, size, size), f"{at}.bias": draw(after.channels)}
        found |= {f"{at}.affine.weight": draw(before.channels, W), f"{at}.affine.bias": draw(before.channels)}
        found[f"{at}.magnitude_ema"] = draw(1)[0] ** 2 + 0.5
        rate = max(before.rate, after.rate) * (1 if image else 2)
        up, down = rate // before.rate, rate // after.rate
        radial = bool(given.get("use_radial_filters")) and i < count - given["num_critical"]
        up_filter = kernel(6 * up if up > 1 and not image else 1, before, rate, False)
        down_filter = kernel(6 * down if down > 1 and not image else 1, after, rate, radial)
        for name, taps in (("up_filter", up_filter), ("down_filter", down_filter)):
            if taps is not None:
                found[f"{at}.{name}"] = torch.tensor(taps).float()
        layers.append({"at": at, "up": up, "down": down, "fu": up_filter, "fd": down_filter, "image": image})
        layers[-1] |= {"before": before, "after": after}
    return found, layers


def image_of(
    t: dict[str, np.ndarray], layers: list[dict[str, Any]], given: dict[str, Any], w: np.ndarray
) -> np.ndarray:
    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return t[f"{name}.weight"] @ x / math.sqrt(len(x)) + t[f"{name}.bias"]

    at, first = "synthesis.input", layers[0]["before"]
    cos, sin, right, down = (turn := dense(f"{at}.affine", w)) / math.hypot(turn[0], turn[1])
    x = np.zeros((first.channels, first.side, first.side))
    for row in range(first.side):  # the features at a point are those of the plane at the moved, then turned point
        for column in range(first.side):
            point = (np.array([column, row]) - (first.side - 1) / 2) / first.rate - np.array([right, down])
            point = np.array([[cos, -sin], [sin, cos]]) @ point
            x[:, row, column] = np.sin(2 * np.pi * (t[f"{at}.freqs"] @ point + t[f"{at}.phases"]))
    length = np.hypot(*t[f"{at}.freqs"].T)
    loud = np.clip((first.rate / 2 - length) / (first.rate / 2 - first.cutoff), 0, 1)
    x = np.tensordot(t[f"{at}.weight"] / math.sqrt(len(loud)), x * loud[:, None, None], 1)
    for layer in layers:
        style, weight = dense(f"{layer['at']}.affine", w), t[f"{layer['at']}.weight"]
        weight = weight * style[None, :, None, None]
        if layer["image"]:
            weight = weight / math.sqrt(weight.shape[1])
        else:
            weight = weight / np.sqrt((weight**2).sum((1, 2, 3), keepdims=True))
        weight = weight / np.sqrt(t[f"{layer['at']}.magnitude_ema"])
        rows = [sum(signal.convolve2d(a, b[::-1, ::-1]) for a, b in zip(x, row, strict=True)) for row in weight]
        x = np.stack(rows) + t[f"{layer['at']}.bias"][:, None, None]
        x = filtered(x, layer, given)
    return x * given.get("output_scale", 0.25)


def filtered(x: np.ndarray, layer: dict[str, Any], given: dict[str, Any]) -> np.ndarray:
    """Up, leaky ReLU, limit, down; the result is cut in the middle, half a pixel of the raised rate to the left."""
    up, down, after = layer["up"], layer["down"], layer["after"]
    if not layer["image"]:
        for axis in (1, 2):
            x = signal.upfirdn([1.0] if layer["fu"] is None else up * layer["fu"], x, up=up, axis=axis)
        x = np.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    x = np.clip(x, *(sign * given.get("conv_clamp", 256.0) for sign in (-1, 1)))
    fd = np.ones((1, 1)) if layer["fd"] is None else layer["fd"]
    fd = fd if fd.ndim == 2 else np.outer(fd, fd)
    x = np.stack([signal.convolve2d(part, fd) for part in x])
    # the middle of the first pixel of the output is that of the input less half of what the sides differ by
    taps = (1 if layer["fu"] is None else len(layer["fu"])) - 1 + len(fd) - 1
    size = layer["before"].side + layer["at_size"] - 1
    total = (after.side - 1) * down + 1 - size * up + taps
    start = taps - (total + up) // 2
    return x[:, start::down, start::down][:, : after.side, : after.side]


@pytest.mark.parametrize(("config", "classes"), [("t", 0), ("r", 2)])
def test_images_are_those_of_the_paper(tmp_path: Path, config: str, classes: int) -> None:
    given = SETTINGS[config]
    tensors, layers = tensors_of(given, classes)
    for layer in layers:
        layer["at_size"] = tensors[f"{layer['at']}.weight"].shape[-1]
    fields = {
        "": {"z_dim": Z, "c_dim": classes, "w_dim": W, "img_resolution": SIDE, "img_channels": 3},
        "mapping": {"num_layers": 2, "w_dim": W},
        "*.fc0": {"activation": "lrelu", "bias_gain": 0.01},
    }
    net = nvidia.tree(tensors, fields, z_dim=Z, **given)
    generator = open_model(nvidia.write(tmp_path / "net.pkl", {"G_ema": net, "G": None, "D": None})).generator
    y = torch.tensor([1, 0]) if classes else None
    z = generator.sample_latent(2, seed=1)
    with torch.no_grad():
        ws = generator.mapping(z, y)
    t = {name: value.double().numpy() for name, value in tensors.items()}
    for a, w, label in zip(z.double().numpy(), ws, [1, 0], strict=True):
        h = a / np.sqrt((a**2).mean())
        if classes:
            extra = t["mapping.embed.weight"][:, label] / math.sqrt(classes) + t["mapping.embed.bias"]
            h = np.concatenate([h, extra / np.sqrt((extra**2).mean())])
        for i in range(2):
            h = t[f"mapping.fc{i}.weight"] @ h * 0.01 / math.sqrt(len(h)) + 0.01 * t[f"mapping.fc{i}.bias"]
            h = np.where(h > 0, h, 0.2 * h) * math.sqrt(2)
        np.testing.assert_allclose(w, h, rtol=1e-4, atol=1e-6)
    want = np.stack([image_of(t, layers, given, w) for w in ws.double().numpy()])
    np.testing.assert_allclose(generator(z, y), want, rtol=1e-4, atol=1e-5 * want.std())
    # the filters that the class designs are those of the file
    section = {ours: given[theirs] for ours, theirs in OPTIONS.items() if theirs in given}
    sizes = {"resolution": SIDE, "image_channels": 3, "channels": given["channel_base"] // SIDE, "latent_dim": Z}
    fresh = GENERATORS.get("stylegan3")(**sizes, w_dim=W, num_classes=classes, **section)
    for name, buffer in fresh.named_buffers():
        if name.endswith("filter"):
            torch.testing.assert_close(buffer, generator.get_buffer(name), rtol=0, atol=1e-7)
    start = z.clone().requires_grad_(True)
    generator(start, y).square().sum().backward()
    assert float(start.grad.abs().min()) > 0
