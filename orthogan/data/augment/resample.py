"""Resampling of images that can be differentiated as often as one likes.

``torch.nn.functional.grid_sample`` has no second derivative. For a fixed grid it is a linear map of the image, so
its derivative is the adjoint map, whose derivative is the map again: two operators that call one another.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# The low-pass filter of the sym6 wavelet (Daubechies 1992, table of least asymmetric filters with 6 vanishing
# moments). Its even shifts are orthonormal: filtering up by 2 and down by 2 with it gives the image back.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_TAPS = len(SYM6)
# The filter is not quite symmetric: it moves what is smooth by so much [pixels of the doubled size], which the grid
# takes back. A shift of the doubled image, so filtering up and down still gives the image back.
_DELAY = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6) - (_TAPS - 1) / 2
_BILINEAR, _REFLECTION = 0, 2  # torch's numbers for the modes of grid_sample


# Operators of torch's own registry and not ``autograd.Function``: those lose the second derivative silently in
# a graph that torch.compile makes of a loss with a gradient penalty inside (torch 2.15).
@torch.library.custom_op("orthogan::sample", mutates_args=())
def _sample(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear sampling with reflection at the edges; linear in the image, the grid is a constant."""
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


@torch.library.custom_op("orthogan::spread", mutates_args=())
def _spread(samples: Tensor, grid: Tensor, height: int, width: int) -> Tensor:
    """The adjoint of ``_sample``: every sample is added to the pixels it was taken from, with the same weights."""
    # Only the shape of the image matters for the derivative with respect to it.
    image = samples.new_zeros(()).expand(*samples.shape[:2], height, width)
    arguments = (samples.contiguous(), image, grid, _BILINEAR, _REFLECTION, False, (True, False))
    return torch.ops.aten.grid_sampler_2d_backward(*arguments)[0]


@_sample.register_fake
def _(images: Tensor, grid: Tensor) -> Tensor:
    return images.new_empty(*images.shape[:2], *grid.shape[1:3])


@_spread.register_fake
def _(samples: Tensor, grid: Tensor, height: int, width: int) -> Tensor:
    return samples.new_empty(*samples.shape[:2], height, width)


def _keep_grid(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.side = inputs[0].shape[2:]


def _sample_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
    return _spread(gradient, ctx.saved_tensors[0], *ctx.side), None


def _spread_backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
    return _sample(gradient, ctx.saved_tensors[0]), None, None, None


_sample.register_autograd(_sample_backward, setup_context=_keep_grid)
_spread.register_autograd(_spread_backward, setup_context=_keep_grid)


def sample(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples (n, c, h', w') of images (n, c, h, w) at ``grid`` (n, h', w', 2), x before y.

    -1 and 1 are the outer edges of the image, beyond which it is mirrored. Twice differentiable with respect to the
    images; the grid must not require a gradient.
    """
    return _sample(images, grid)


def _mirrored(side: int, margin: int, device: torch.device) -> Tensor:
    """Indices of a row with ``margin`` more pixels at both ends, mirrored at the outer edges."""
    place = torch.arange(-margin, side + margin, device=device) % (2 * side)
    return torch.minimum(place, 2 * side - 1 - place)


def _taps(like: Tensor) -> Tensor:
    """SYM6 as a tensor, created on the device: copying it from the host would synchronize, and break a CUDA graph."""
    return torch.cat([torch.full((1,), tap, dtype=like.dtype, device=like.device) for tap in SYM6])


def upsample(images: Tensor) -> Tensor:
    """Double the size to (n, c, 2h, 2w) with a low-pass filter; the edges are mirrored."""
    n, c, h, w = images.shape
    margin = _TAPS // 4
    padded = images.index_select(2, _mirrored(h, margin, images.device))
    padded = padded.index_select(3, _mirrored(w, margin, images.device)).reshape(n * c, 1, h + 2 * margin, -1)
    taps = _taps(images) * 2**0.5
    tall = F.conv_transpose2d(padded, taps.view(1, 1, -1, 1), stride=(2, 1))
    wide = F.conv_transpose2d(tall, taps.view(1, 1, 1, -1), stride=(1, 2))
    first = _TAPS - 1  # what comes before belongs to the margin
    return wide[:, :, first : first + 2 * h, first : first + 2 * w].reshape(n, c, 2 * h, 2 * w)


def downsample(images: Tensor) -> Tensor:
    """Halve the size of images that have ``_TAPS - 2`` more rows and columns than twice the desired size."""
    n, c, h, w = images.shape
    taps = _taps(images) * 0.5**0.5
    low = F.conv2d(images.reshape(n * c, 1, h, w), taps.view(1, 1, -1, 1), stride=(2, 1))
    low = F.conv2d(low, taps.view(1, 1, 1, -1), stride=(1, 2))
    return low.reshape(n, c, low.shape[2], low.shape[3])


def _grid(inverse: Tensor, height: int, width: int, *, density: int = 1, margin: int = 0, delay: float = 0.0) -> Tensor:
    """Return the sampling grid of an output with ``density`` points per pixel and ``margin`` more points on every side.

    ``delay``: shift of both the given and the desired points to the right and down [points].
    """
    like = {"device": inverse.device, "dtype": inverse.dtype}
    x = (torch.arange(-margin, density * width + margin, **like) + 0.5 - delay) / density - width / 2
    y = (torch.arange(-margin, density * height + margin, **like) + 0.5 - delay) / density - height / 2
    coefficients = inverse[:, :2, :, None, None]  # (n, row, column, 1, 1)
    places = coefficients[:, :, 0] * x + coefficients[:, :, 1] * y[:, None] + coefficients[:, :, 2]
    places = places + delay / density
    return torch.stack([places[:, 0] * (2 / width), places[:, 1] * (2 / height)], dim=-1)


def affine(images: Tensor, inverse: Tensor) -> Tensor:
    """Transform images (n, c, h, w) with little aliasing: upsample by 2, sample bilinearly, downsample by 2.

    ``inverse``: (n, 3, 3), maps the position (x, y, 1) of an output pixel to the position in the image that it shows,
    both in pixels from the center, with y pointing down. Mirrored beyond the edges. Twice differentiable with respect
    to the images. Flips, quarter turns and shifts by whole pixels map pixels to pixels and are not filtered.
    """
    h, w = images.shape[2:]
    inverse = inverse.to(images.dtype)
    area = inverse[:, 0, 0] * inverse[:, 1, 1] - inverse[:, 0, 1] * inverse[:, 1, 0]
    whole = (inverse == inverse.round()).flatten(1).all(1) & (area.abs() == 1)
    moved = sample(images, _grid(inverse, h, w))
    dense = sample(upsample(images), _grid(inverse, h, w, density=2, margin=_TAPS // 2 - 1, delay=_DELAY))
    return torch.where(whole.view(-1, 1, 1, 1), moved, downsample(dense))
