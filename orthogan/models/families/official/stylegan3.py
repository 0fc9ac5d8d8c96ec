"""StyleGAN3 exactly as published, configs T and R, so that it takes the authors' weights.

Written from the paper in plain torch: Fourier features that w moves and turns, and non-linearities at a raised sampling
rate between low-pass filters. The outputs equal those of NVIDIA's code in float32. It is slower than their CUDA code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.models.families.modulation import EqualLinear, Style, modulated_conv2d, style_of
from orthogan.models.families.official.stylegan2 import ConcatMapping, limit
from orthogan.models.families.resnet_blocks import unsupported_resolution
from orthogan.models.families.style_based import StyleBased
from orthogan.models.protocol import GENERATORS

SIZES = tuple(16 << i for i in range(8))
SLOPE = 0.2  # of the leaky ReLU
MAGNITUDE_DECAY = 0.999  # of the mean square of the input of a layer, per training forward


@dataclass(frozen=True)
class Signal:
    """The maps between two layers: side [pixels], sampling rate, cutoff, half of the transition band, channels."""

    side: int
    rate: int
    cutoff: float
    half_width: float
    channels: int


def signals(
    resolution: int,
    channels: int,
    image_channels: int,
    *,
    widest: int,
    layers: int,
    critical: int,
    margin: int,
    first_cutoff: float,
    first_stopband: float,
    last_stopband: float,
) -> list[Signal]:
    """Return the signal after the input (which is that of the first layer) and after each layer (sec. 3.2, fig. 4)."""
    final = resolution / 2
    shares = np.minimum(np.arange(layers + 1) / (layers - critical), 1)
    cutoffs = first_cutoff * (final / first_cutoff) ** shares
    stops = first_stopband * (final * last_stopband / first_stopband) ** shares
    rates = np.exp2(np.ceil(np.log2(np.minimum(stops * 2, resolution))))
    halves = np.maximum(stops, rates / 2) - cutoffs
    sides = rates + margin * 2
    sides[-2:] = resolution
    widths = np.rint(np.minimum(channels * final / cutoffs, widest))
    widths[-1] = image_channels
    return [
        Signal(int(side), int(rate), float(cutoff), float(half), int(width))
        for side, rate, cutoff, half, width in zip(sides, rates, cutoffs, halves, widths, strict=True)
    ]


def low_pass(taps: int, cutoff: float, width: float, rate: float, *, radial: bool = False) -> Tensor | None:
    """Return a Kaiser low-pass filter (taps,) of sum 1, or a radially symmetric one (taps, taps); None for one tap.

    Args:
        cutoff: frequency at which the amplitude is one half. ``width``: of the transition band. ``rate``: of sampling.

    Source: Karras et al. 2021, arXiv:2106.12423, appendix C.1; the window: Kaiser 1974.
    """
    if taps == 1:
        return None
    attenuation = 2.285 * (taps - 1) * math.pi * width / (rate / 2) + 7.95
    beta = 0.0
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    window = np.kaiser(taps, beta)
    place = (np.arange(taps) - (taps - 1) / 2) / rate
    if radial:
        r = np.hypot(place[:, None], place[None])
        with torch.device("cpu"):
            bessel = torch.special.bessel_j1(torch.from_numpy(2 * cutoff * math.pi * r)).numpy()
        taps_found = bessel / (math.pi * r) * np.outer(window, window)
    else:
        taps_found = np.sinc(2 * cutoff * place) * window
    return torch.as_tensor((taps_found / taps_found.sum()).tolist(), dtype=torch.float32)


def filtered_relu(
    x: Tensor,
    up_filter: Tensor | None,
    down_filter: Tensor | None,
    *,
    up: int,
    down: int,
    padding: tuple[int, int],
    gain: float,
    slope: float,
    clamp: float | None,
) -> Tensor:
    """Apply a leaky ReLU at ``up`` times the sampling rate, between two low-pass filters, and keep one of ``down``.

    Args:
        x: (n, c, h, h). ``padding``: zeros before and after, at the raised rate; negative numbers crop.
        gain: factor of the leaky ReLU. ``clamp``: limit of its output.
    """
    x = _upsampled(x, up_filter, up, padding)
    x = limit(functional.leaky_relu(x, slope) * gain, clamp)
    if down_filter is None:
        return x[:, :, ::down, ::down]
    n, c = x.shape[:2]
    x, kernel = x.flatten(0, 1)[:, None], down_filter.to(x.dtype)
    if kernel.dim() == 2:
        x = functional.conv2d(x, kernel.flip(0, 1)[None, None], stride=down)
    else:
        kernel = kernel.flip(0)
        x = functional.conv2d(x, kernel[None, None, None], stride=(1, down))
        x = functional.conv2d(x, kernel[None, None, :, None], stride=(down, 1))
    return x.view(n, c, *x.shape[2:])


def _upsampled(x: Tensor, kernel: Tensor | None, up: int, padding: tuple[int, int]) -> Tensor:
    """Put up - 1 zeros after each pixel, pad, and convolve with the filter times up along both axes."""
    n, c, side, _ = x.shape
    taps = torch.ones(1, device=x.device, dtype=x.dtype) if kernel is None else kernel.to(x.dtype) * up
    length = side * up + sum(padding) - (len(taps) - 1)
    x = x.flatten(0, 1)[:, None]
    x = functional.conv_transpose2d(x, taps[None, None, None], stride=(1, up))
    x = functional.conv_transpose2d(x, taps[None, None, :, None], stride=(up, 1))
    # this is the whole convolution; the part that is needed begins where a tap first meets the padding
    start = len(taps) - 1 - padding[0]
    after = length - (x.shape[-1] - start)
    return functional.pad(x, (-start, after, -start, after)).view(n, c, length, length)


class FourierInput(nn.Module):
    """Fourier features (n, channels, side, side) of a picture plane that ``affine`` of w turns and shifts.

    ``transform`` (3, 3) is a further transform of the plane by the user, the inverse of that of the image.
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, w_dim: int, signal: Signal) -> None:
        super().__init__()
        self.signal = signal
        freqs = torch.randn(signal.channels, 2)
        radii = freqs.square().sum(1, keepdim=True).sqrt()
        self.weight = nn.Parameter(torch.randn(signal.channels, signal.channels))
        self.affine: nn.Module = EqualLinear(w_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias[0] = 1
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs / (radii * radii.square().exp().pow(0.25)) * signal.cutoff)
        self.register_buffer("phases", torch.rand(signal.channels) - 0.5)

    def forward(self, w: Tensor | Style) -> Tensor:
        """Return the features of w (n, w_dim), or of the four numbers that ``affine`` makes of it."""
        t = style_of(self, w)
        cos, sin, right, down = (t / t[:, :2].norm(dim=1, keepdim=True)).unbind(1)
        zero, one = torch.zeros_like(cos), torch.ones_like(cos)
        turn = torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], 1).view(-1, 3, 3)
        shift = torch.stack([one, zero, -right, zero, one, -down, zero, zero, one], 1).view(-1, 3, 3)
        whole = turn @ shift @ self.transform.to(t.dtype)
        phases = self.phases + (self.freqs @ whole[:, :2, 2:]).squeeze(2)
        freqs = self.freqs @ whole[:, :2, :2]
        side, rate, band = self.signal.side, self.signal.rate, self.signal.cutoff
        loud = (1 - (freqs.norm(dim=2) - band) / (rate / 2 - band)).clamp(0, 1)
        place = (torch.arange(side, device=t.device, dtype=t.dtype) + (1 - side) / 2) / rate
        across, along = freqs[:, None, None, :, 0] * place[:, None], freqs[:, None, None, :, 1] * place[:, None, None]
        waves = torch.sin((across + along + phases[:, None, None]) * (2 * math.pi)) * loud[:, None, None]
        return (waves @ (self.weight / math.sqrt(len(self.weight))).mT).permute(0, 3, 1, 2)


class FilteredLayer(nn.Module):
    """A modulated convolution and a filtered leaky ReLU, from one signal to the next.

    ``magnitude_ema``: running mean square of the input, by whose root the input is divided.
    """

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(
        self,
        w_dim: int,
        before: Signal,
        after: Signal,
        *,
        image: bool,
        kernel: int,
        radial: bool,
        taps: int,
        oversampling: int,
        clamp: float | None,
    ) -> None:
        super().__init__()
        self.image, self.clamp = image, clamp
        self.kernel = 1 if image else kernel
        self.affine: nn.Module = EqualLinear(w_dim, before.channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        self.register_buffer("magnitude_ema", torch.ones(()))
        rate = max(before.rate, after.rate) * (1 if image else oversampling)
        self.up, self.down = rate // before.rate, rate // after.rate
        up_taps = taps * self.up if self.up > 1 and not image else 1
        down_taps = taps * self.down if self.down > 1 and not image else 1
        self.register_buffer("up_filter", low_pass(up_taps, before.cutoff, before.half_width * 2, rate))
        self.register_buffer(
            "down_filter", low_pass(down_taps, after.cutoff, after.half_width * 2, rate, radial=radial)
        )
        # the padding that gives the side of the next signal, with pixels as the centers of squares (appendix C.3)
        total = (after.side - 1) * self.down + 1 - (before.side + self.kernel - 1) * self.up + up_taps + down_taps - 2
        low = (total + self.up) // 2
        self.padding = (low, total - low)

    def forward(self, x: Tensor, w: Tensor | Style) -> Tensor:
        """Apply to maps (n, in, s, s) and w (n, w_dim) or a style (n, in)."""
        if self.training:
            with torch.no_grad():
                now = x.detach().float().square().mean().to(self.magnitude_ema.dtype)
                self.magnitude_ema.lerp_(now, 1 - MAGNITUDE_DECAY)
        style, weight = style_of(self, w), self.weight
        if self.image:
            style = style / math.sqrt(weight.shape[1] * self.kernel**2)
        else:  # only the directions of weight and style matter; this keeps them in the range of half precision
            weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
            style = style * style.square().mean(1, keepdim=True).rsqrt()
        x = x * self.magnitude_ema.rsqrt().to(x.dtype)
        x = modulated_conv2d(x, weight.to(x.dtype), style, demodulate=not self.image, padding=self.kernel - 1)
        return filtered_relu(
            x + self.bias.to(x.dtype)[:, None, None],
            self.up_filter,
            self.down_filter,
            up=self.up,
            down=self.down,
            padding=self.padding,
            gain=1.0 if self.image else math.sqrt(2),
            slope=1.0 if self.image else SLOPE,
            clamp=self.clamp,
        )


@GENERATORS.register("stylegan3")
class StyleGAN3Generator(StyleBased):
    """The generator of StyleGAN3 as published: z -> ``mapping`` -> w -> ``synthesis`` -> image, without noise.

    Its discriminator is that of StyleGAN2, which has this name too.

    Args:
        channels: width at full size, ``channel_base / resolution``: at 1024 px 32 in config T, 64 in config R.
        num_classes: > 0 for a mapping network that takes labels.
        w_dim: dimension of w; ``latent_dim`` by default.
        mapping_layers, mapping_rate: number of its layers, and their learning rate relative to the others.
        widest: limit of the widths; 512 in config T, 1024 in config R.
        layers, critical: number of layers before the image, and how many of the last ones use all frequencies.
        kernel: side of the convolutions; 3 in config T, 1 in config R.
        radial: radially symmetric filters, as in config R.
        margin: pixels around the image in the maps before the last ones.
        first_cutoff, first_stopband: of the input. ``last_stopband``: relative to the last cutoff.
        taps, oversampling: length of the filters, and sampling rate of the non-linearities, relative to the maps.
        clamp: limit of the non-linearities; None for none. ``scale``: factor of the image.

    Raises:
        UserError: the resolution is not a power of two from 16 to 2048.

    Source: Karras et al. 2021, arXiv:2106.12423.

    Example:
        >>> from orthogan.models import StyleGAN3Generator
        >>> generator = StyleGAN3Generator(resolution=32, image_channels=3, channels=2, latent_dim=8, widest=8)
        >>> generator(generator.sample_latent(2, seed=0)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        *,
        resolution: int,
        image_channels: int,
        channels: int,
        latent_dim: int,
        num_classes: int = 0,
        w_dim: int | None = None,
        mapping_layers: int = 2,
        mapping_rate: float = 0.01,
        widest: int = 512,
        layers: int = 14,
        critical: int = 2,
        kernel: int = 3,
        radial: bool = False,
        margin: int = 10,
        first_cutoff: float = 2.0,
        first_stopband: float = 2**2.1,
        last_stopband: float = 2**0.3,
        taps: int = 6,
        oversampling: int = 2,
        clamp: float | None = 256.0,
        scale: float = 0.25,
    ) -> None:
        super().__init__()
        if resolution not in SIZES:
            raise unsupported_resolution("stylegan3", resolution, SIZES)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.resolution, self.image_channels = resolution, image_channels
        self.w_dim, self.scale = w_dim or latent_dim, scale
        self.mapper = ConcatMapping(latent_dim, self.w_dim, num_classes, mapping_layers, rate=mapping_rate)
        found = signals(
            resolution,
            channels,
            image_channels,
            widest=widest,
            layers=layers,
            critical=critical,
            margin=margin,
            first_cutoff=first_cutoff,
            first_stopband=first_stopband,
            last_stopband=last_stopband,
        )
        self.input = FourierInput(self.w_dim, found[0])
        self.layers = nn.ModuleList(
            FilteredLayer(
                self.w_dim,
                found[max(0, i - 1)],
                found[i],
                image=i == layers,
                kernel=kernel,
                radial=radial and i < layers - critical,
                taps=taps,
                oversampling=oversampling,
                clamp=clamp,
            )
            for i in range(layers + 1)
        )
        self.num_ws = layers + 2
        self.register_buffer("w_mean", torch.zeros(self.w_dim))

    def first_layer(self) -> nn.Module:
        """Return the linear layer that takes the latent, after the pixel norm."""
        return self.mapper.layers[0]

    def style_parts(self) -> list[tuple[str, nn.Module, int]]:
        """Return (dotted name, layer, row of ws) of every style: of the input and the layers, a row each."""
        layers: list[tuple[str, nn.Module, int]] = [(f"layers.{i}", part, i + 1) for i, part in enumerate(self.layers)]
        return [("input", self.input, 0), *layers]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of z (n, latent_dim), labels (n,); near [-1, 1], unbounded."""
        return self.synthesis(self.mapping(z, y))

    def render(self, takes: Sequence[Tensor | Style], seeds: Tensor | None = None) -> Tensor:
        """Return images (n, c, h, w) of a w (n, w_dim) or a ``Style`` per entry of ``style_parts``."""
        with torch.autocast(self.w_mean.device.type, enabled=False):
            x = self.input(takes[0])
        for layer, taken in zip(self.layers, takes[1:], strict=True):
            x = layer(x, taken)
        return x * self.scale
