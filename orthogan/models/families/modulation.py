"""The layers of a style-based GAN: equalized learning rate, modulated convolution, blur, noise from a seed.

Written from the papers: Karras et al. 2018 (equalized learning rate, pixel norm), 2019 (styles, noise, blur), 2020
(modulation and demodulation of the weights).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan.linalg.precision import at_least_float32
from orthogan.weights.effective import Equalized, applied_weight

EPS = 1e-8
SLOPE = 0.2
GROUP = 4  # images over which the discriminator takes the standard deviation
WORD = 0xFFFFFFFF  # 32 bits


def activate(x: Tensor) -> Tensor:
    """Return sqrt(2) * leaky ReLU of slope 0.2, which about keeps the mean square of its input."""
    return functional.leaky_relu(x, SLOPE) * math.sqrt(2)


def pixel_norm(x: Tensor) -> Tensor:
    """Scale each row of (n, d) to a mean square of 1."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPS)


class EqualLinear(Equalized, nn.Linear):
    """A linear layer with weight * gain, whose weight starts at N(0, 1): each layer learns at its own scale.

    The bias starts at ``bias`` (None: no bias). ``lr_mul`` slows down weight and bias and changes nothing at the start.
    ``equalized=False`` is a plain layer with the same start, for penalties and gradient rules that apply to the weight
    itself. Under a constraint, which sets the scale of the weight, there is no gain.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: float | None = 0.0,
        lr_mul: float = 1.0,
        equalized: bool = True,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias is not None)
        self.rate = lr_mul if equalized else 1.0
        self.gain = _equalize(self, in_features, self.rate, equalized)
        if bias is not None:
            nn.init.constant_(self.bias, bias / self.rate)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        bias = None if self.bias is None else (self.bias * self.rate).to(input.dtype)
        return functional.linear(input, applied_weight(self).to(input.dtype), bias)


class EqualConv2d(Equalized, nn.Conv2d):
    """A convolution with weight * gain as in ``EqualLinear``, size-preserving or, with ``down``, halving after a blur.

    Args:
        kernel: side of the kernel, odd.
        bias: whether there is a bias; it starts at zero.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, down: bool = False, bias: bool = True, equalized: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
        self.down = down
        self.gain = _equalize(self, inputs * kernel**2, 1.0, equalized)
        if bias:
            nn.init.zeros_(self.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, input: Tensor) -> Tensor:
        """Map (n, in, h, w) to (n, out, h, w), or (n, out, h/2, w/2)."""
        weight = applied_weight(self)
        if not self.down:
            return functional.conv2d(input, weight, self.bias, padding=self.padding)
        if self.kernel_size == (1, 1):  # blur only the pixels that are kept
            return functional.conv2d(blur(input, 1, stride=2), weight, self.bias)
        return functional.conv2d(blur(input, 1 + int(self.padding[0])), weight, self.bias, stride=2)


class ModulatedConv2d(Equalized, nn.Conv2d):
    """A convolution whose input channels are scaled by an affine map of w, see ``modulated_conv2d``; bias from 0."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        w_dim: int,
        *,
        demodulate: bool = True,
        up: bool = False,
        equalized: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        self.demodulate, self.up = demodulate, up
        self.gain = _equalize(self, inputs * kernel**2, 1.0, equalized)
        nn.init.zeros_(self.bias)  # pyright: ignore[reportArgumentType]
        # styles start around 1; a HouseholderProjector can replace this layer
        self.affine: nn.Module = EqualLinear(w_dim, inputs, bias=1.0, equalized=equalized)

    def forward(self, x: Tensor, w: Tensor | Style) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Maps (n, in, h, h), w (n, w_dim) or a style (n, in) -> (n, out, h, h), or (n, out, 2h, 2h) with ``up``."""
        style = style_of(self, w)
        h = modulated_conv2d(x, applied_weight(self), style, demodulate=self.demodulate, up=self.up)
        assert self.bias is not None
        return h + self.bias.to(h.dtype)[:, None, None]


class StyledConv(ModulatedConv2d):
    """A modulated 3x3 convolution, noise, bias and leaky ReLU.

    ``noise_strength`` (0-d) starts at zero. It is a parameter, or a buffer after ``freeze_noise``, or None.
    ``layer``: number of the layer, so that no two layers have the same noise.
    """

    noise_strength: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        *,
        layer: int,
        up: bool = False,
        noise: bool = True,
        equalized: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, 3, w_dim, up=up, equalized=equalized)
        self.layer = layer
        self.register_parameter("noise_strength", nn.Parameter(torch.zeros(())) if noise else None)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Tensor, w: Tensor | Style, seeds: Tensor | None = None
    ) -> Tensor:
        """Apply the layer as ``ModulatedConv2d`` does; noise from ``seeds`` (n,) int64, or one map for all if None."""
        h = super().forward(x, w)
        if self.noise_strength is not None:
            seeds = torch.zeros(1, dtype=torch.int64, device=h.device) if seeds is None else seeds
            noise = hash_noise(seeds, self.layer, h.shape[2], h.shape[3]).to(self.noise_strength.dtype)
            h = h + (self.noise_strength * noise).to(h.dtype)
        return activate(h)

    @torch.no_grad()
    def freeze_noise(self, strength: float | None = None) -> None:
        """Turn the strength (set to ``strength``, if given) into a buffer of the same name, which is not trained."""
        if self.noise_strength is None:
            return
        value = self.noise_strength.detach().clone()
        if strength is not None:
            value.fill_(strength)
        del self.noise_strength
        self.register_buffer("noise_strength", value)


class Style(NamedTuple):
    """The scales (n, in) of the input channels of a layer, where a layer would else compute them from w."""

    value: Tensor


def style_of(layer: nn.Module, w: Tensor | Style) -> Tensor:
    """Return the style (n, k) of a layer: ``layer.affine`` of w (n, w_dim), or the given one."""
    if isinstance(w, Style):
        return w.value
    with torch.autocast(w.device.type, enabled=False):
        return layer.affine(at_least_float32(w))  # pyright: ignore[reportCallIssue]


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    style: Tensor,
    *,
    demodulate: bool = True,
    up: bool = False,
    padding: int | None = None,
) -> Tensor:
    """Convolve image i with W_i = weight * style_i, each output channel of W_i scaled to length 1 (2020, sec. 2.2).

    Inputs and outputs are scaled instead of weights: one convolution for the whole batch, and no weight per sample.
    ``up`` is a transposed convolution of stride 2 followed by a blur. The lengths are computed in at least float32.

    Args:
        x: (n, in, h, w). weight: (out, in, k, k), k odd; 3 for ``up``. style: (n, in).
        demodulate: whether to scale the outputs.
        padding: of zeros, without ``up``; by default the size stays the same.

    Returns:
        (n, out, h, w), or (n, out, 2h, 2w) with ``up``.
    """
    x = x * style.to(x.dtype)[:, :, None, None]
    if up:
        # doubling spreads the energy of a pixel over four, hence the factor 4
        h = blur(functional.conv_transpose2d(x, weight.transpose(0, 1), stride=2), 1) * 4
    else:
        h = functional.conv2d(x, weight, padding=weight.shape[-1] // 2 if padding is None else padding)
    if not demodulate:
        return h
    with torch.autocast(x.device.type, enabled=False):
        square = at_least_float32(weight).square().sum((2, 3))
        scale = torch.rsqrt(at_least_float32(style).square() @ square.mT + EPS)
    return h * scale.to(h.dtype)[:, :, None, None]


def blur(x: Tensor, padding: int, *, stride: int = 1) -> Tensor:
    """Convolve every channel with the outer product of [1, 3, 3, 1] / 8 with itself, with zero padding.

    (n, c, h, w) -> (n, c, h + 2 * padding - 3, ...); every ``stride``-th pixel is kept.
    """
    return functional.conv2d(x, _taps(x), padding=padding, stride=stride, groups=x.shape[1])


def upsample(x: Tensor) -> Tensor:
    """Double (n, c, h, w) to (n, c, 2h, 2w) as ``double``, but with zeros beyond the edges, as the authors do."""
    kernel = _taps(x) * 4
    return functional.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def _taps(x: Tensor) -> Tensor:
    place = torch.arange(4, device=x.device, dtype=x.dtype)  # no copy from the host
    taps = (1 + place * (3 - place)) / 8
    return torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)


def double(x: Tensor) -> Tensor:
    """Double (n, c, h, w) to (n, c, 2h, 2w): put zeros between the pixels, then blur times 4, with edges repeated."""
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def group_size(n: int) -> int:
    """Return the largest group, up to 4 images, that divides a batch of ``n``, or half of it if ``n`` is even."""
    whole = n if n % 2 else n // 2
    return next(size for size in range(GROUP, 0, -1) if whole % size == 0)


def with_deviation(x: Tensor) -> Tensor:
    """Append a channel with the standard deviation over a group of images: (n, c, h, w) -> (n, c + 1, h, w).

    It is averaged over all numbers. The groups are ``group_size(n)`` consecutive images (Karras et al. 2018, sec. 3).
    """
    with torch.autocast(x.device.type, enabled=False):
        groups = at_least_float32(x).unflatten(0, (-1, group_size(len(x))))
        deviation = torch.sqrt(groups.var(1, correction=0, keepdim=True) + 1e-8).mean((2, 3, 4), keepdim=True)
        channel = deviation.expand(-1, groups.shape[1], 1, *x.shape[2:]).flatten(0, 1)
    return torch.cat([x, channel.to(x.dtype)], 1)


def latent_seeds(z: Tensor) -> Tensor:
    """Return a seed (n,) int64 per row of z (n, d): a hash of its bits, as float32.

    The noise of an image thus depends only on its latent, not on the batch, the process or an earlier step.
    """
    bits = z.detach().float().view(torch.int32).to(torch.int64) & WORD
    return _mix(_mix(bits ^ _mix(torch.arange(z.shape[1], device=z.device))).sum(1) & WORD)


def hash_noise(seeds: Tensor, layer: int, height: int, width: int | None = None) -> Tensor:
    """Return standard normal numbers (n, 1, height, width) float32, a function of seed (n,) int64, layer and pixel.

    ``width``: None if it is the height.
    """
    width = height if width is None else width
    start = _mix((seeds + 0x9E3779B9 * (layer + 1)) & WORD)
    pixels = _mix(torch.arange(1, height * width + 1, device=seeds.device))
    # 24 bits as odd multiples of 2^-24 within (-1, 1): all are exact in float32, and none is an endpoint
    odd = (_mix(start[:, None] ^ pixels) >> 8) * 2 + 1 - 2**24
    return (torch.erfinv(odd.float() / 2**24) * math.sqrt(2)).view(-1, 1, height, width)


def _mix(x: Tensor) -> Tensor:
    """Mix 32-bit words (in int64) by a bijection that changes half of the bits; factors keep products below 2^63."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & WORD
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & WORD
    return x ^ (x >> 16)


@torch.no_grad()
def _equalize(layer: nn.Linear | nn.Conv2d, fan_in: int, lr_mul: float, equalized: bool) -> float:
    """Initialize the weight and return its gain. Their product is N(0, 1 / fan_in)."""
    scale = 1 / math.sqrt(fan_in)
    nn.init.normal_(layer.weight, 0.0, 1 / lr_mul if equalized else scale)
    return lr_mul * scale if equalized else 1.0
