"""Resampling of images that can be differentiated as often as one likes.

``torch.nn.functional.grid_sample`` has no second derivative. For a fixed grid it is a linear map of the image, so
its derivative is the adjoint map, whose derivative is the map again: two autograd functions that call one another.
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


class _Sample(torch.autograd.Function):
    """Bilinear sampling with reflection at the edges; linear in the image, the grid is a constant."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.image_shape = images.shape
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(grads[0], grid, ctx.image_shape), None  # pyright: ignore[reportReturnType]


class _Spread(torch.autograd.Function):
    """The adjoint of ``_Sample``: every sample is added to the pixels it was taken from, with the same weights."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, grid: Tensor, image_shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        # Only the shape of the image matters for the derivative with respect to it.
        image = samples.new_zeros(()).expand(image_shape)
        arguments = (samples.contiguous(), image, grid, _BILINEAR, _REFLECTION, False, (True, False))
        return torch.ops.aten.grid_sampler_2d_backward(*arguments)[0]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(grads[0], grid), None, None  # pyright: ignore[reportReturnType]


def sample(images: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples (n, c, h', w') of images (n, c, h, w) at ``grid`` (n, h', w', 2), x before y.

    -1 and 1 are the outer edges of the image, beyond which it is mirrored. Twice differentiable in the images;
    the grid must not need a gradient.
    """
    return _Sample.apply(images, grid)  # pyright: ignore[reportReturnType]


def _mirrored(side: int, margin: int, device: torch.device) -> Tensor:
    """Indices of a row with ``margin`` more pixels at both ends, mirrored at the outer edges."""
    place = torch.arange(-margin, side + margin, device=device) % (2 * side)
    return torch.minimum(place, 2 * side - 1 - place)


def upsample(images: Tensor) -> Tensor:
    """Twice the size, (n, c, 2h, 2w), low-pass filtered; the edges are mirrored."""
    n, c, h, w = images.shape
    margin = _TAPS // 4
    padded = images.index_select(2, _mirrored(h, margin, images.device))
    padded = padded.index_select(3, _mirrored(w, margin, images.device)).reshape(n * c, 1, h + 2 * margin, -1)
    taps = torch.tensor(SYM6, dtype=images.dtype, device=images.device) * 2**0.5
    tall = F.conv_transpose2d(padded, taps.view(1, 1, -1, 1), stride=(2, 1))
    wide = F.conv_transpose2d(tall, taps.view(1, 1, 1, -1), stride=(1, 2))
    first = _TAPS - 1  # what comes before belongs to the margin
    return wide[:, :, first : first + 2 * h, first : first + 2 * w].reshape(n, c, 2 * h, 2 * w)


def downsample(images: Tensor) -> Tensor:
    """Half the size of images that have ``_TAPS - 2`` more rows and columns than twice the wanted size."""
    n, c, h, w = images.shape
    taps = torch.tensor(SYM6, dtype=images.dtype, device=images.device) * 0.5**0.5
    low = F.conv2d(images.reshape(n * c, 1, h, w), taps.view(1, 1, -1, 1), stride=(2, 1))
    low = F.conv2d(low, taps.view(1, 1, 1, -1), stride=(1, 2))
    return low.reshape(n, c, low.shape[2], low.shape[3])


def _grid(inverse: Tensor, height: int, width: int, *, density: int = 1, margin: int = 0, delay: float = 0.0) -> Tensor:
    """Where to sample for an output of ``density`` points a pixel and ``margin`` more points on every side.

    ``delay``: how far both the given and the wanted points are shifted to the right and down [points].
    """
    like = {"device": inverse.device, "dtype": inverse.dtype}
    x = (torch.arange(-margin, density * width + margin, **like) + 0.5 - delay) / density - width / 2
    y = (torch.arange(-margin, density * height + margin, **like) + 0.5 - delay) / density - height / 2
    coefficients = inverse[:, :2, :, None, None]  # (n, row, column, 1, 1)
    places = coefficients[:, :, 0] * x + coefficients[:, :, 1] * y[:, None] + coefficients[:, :, 2]
    places = places + delay / density
    return places.permute(0, 2, 3, 1) * torch.tensor([2 / width, 2 / height], **like)


def affine(images: Tensor, inverse: Tensor) -> Tensor:
    """Transform images (n, c, h, w) with little aliasing: up by 2, bilinear sampling, down by 2.

    ``inverse``: (n, 3, 3), takes the place (x, y, 1) of an output pixel to the place in the image that it shows,
    both in pixels from the centre, y downwards. Mirrored beyond the edges. Twice differentiable in the images.
    Flips, quarter turns and shifts by whole pixels take pixels to pixels and are not filtered.
    """
    h, w = images.shape[2:]
    inverse = inverse.to(images.dtype)
    area = inverse[:, 0, 0] * inverse[:, 1, 1] - inverse[:, 0, 1] * inverse[:, 1, 0]
    whole = (inverse == inverse.round()).flatten(1).all(1) & (area.abs() == 1)
    moved = sample(images, _grid(inverse, h, w))
    dense = sample(upsample(images), _grid(inverse, h, w, density=2, margin=_TAPS // 2 - 1, delay=_DELAY))
    return torch.where(whole.view(-1, 1, 1, 1), moved, downsample(dense))
