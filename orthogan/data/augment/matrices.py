"""Batches of small matrices for geometric and color changes; every argument has shape (n,).

Constants are computed on the device: copying them from the host would synchronize, and break a CUDA graph.
"""

from __future__ import annotations

import torch
from torch import Tensor


def identity(n: int, size: int, like: Tensor) -> Tensor:
    """(n, size, size) identities of the type and device of ``like``."""
    return torch.eye(size, dtype=like.dtype, device=like.device).repeat(n, 1, 1)


def translate2d(x: Tensor, y: Tensor) -> Tensor:
    """(n, 3, 3): shift by (x, y)."""
    matrix = identity(len(x), 3, x)
    matrix[:, 0, 2], matrix[:, 1, 2] = x, y
    return matrix


def scale2d(x: Tensor, y: Tensor) -> Tensor:
    """(n, 3, 3): scale the axes by x and y."""
    matrix = identity(len(x), 3, x)
    matrix[:, 0, 0], matrix[:, 1, 1] = x, y
    return matrix


def rotate2d(angle: Tensor) -> Tensor:
    """(n, 3, 3): rotate by an angle [radians], from the x axis toward the y axis."""
    matrix = identity(len(angle), 3, angle)
    cos, sin = torch.cos(angle), torch.sin(angle)
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = cos, -sin, sin, cos
    return matrix


def quarter_turns(count: Tensor) -> Tensor:
    """(n, 3, 3): rotate by ``count`` right angles (integers), without rounding errors."""
    turns = count % 4
    cos, sin = (turns - 2).abs() - 1, 1 - (turns - 1).abs()
    matrix = identity(len(count), 3, count)
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0], matrix[:, 1, 1] = cos, -sin, sin, cos
    return matrix


def add_colour(amount: Tensor) -> Tensor:
    """(n, 4, 4): add to all three channels."""
    matrix = identity(len(amount), 4, amount)
    matrix[:, :3, 3] = amount[:, None]
    return matrix


def scale_colour(factor: Tensor) -> Tensor:
    """(n, 4, 4): multiply all three channels."""
    matrix = identity(len(factor), 4, factor)
    matrix.diagonal(dim1=1, dim2=2)[:, :3] = factor[:, None]
    return matrix


def _grey_axis(like: Tensor) -> Tensor:
    """(4, 4): the projection on the gray diagonal of the RGB cube."""
    axis = _of_colours(like) / 3**0.5
    return torch.outer(axis, axis)


def _of_colours(like: Tensor) -> Tensor:
    """(1, 1, 1, 0): the fourth coordinate is the constant one, which no color change may touch."""
    return (torch.arange(4, device=like.device) < 3).to(like.dtype)


def flip_luma(on: Tensor) -> Tensor:
    """(n, 4, 4): mirror at the plane of no luma where ``on`` is 1, nothing where it is 0; hue is kept."""
    return identity(len(on), 4, on) - 2 * _grey_axis(on) * on[:, None, None]


def rotate_hue(angle: Tensor) -> Tensor:
    """(n, 4, 4): rotate about the gray diagonal by an angle [radians] (Rodrigues' formula)."""
    axis = 1 / 3**0.5
    cross = torch.zeros(4, 4, dtype=angle.dtype, device=angle.device)
    place = torch.arange(3, device=angle.device)
    step = (place - place[:, None]) % 3  # [[0, -1, 1], [1, 0, -1], [-1, 1, 0]] is -1 at step 1 and 1 at step 2
    cross[:3, :3] = axis * ((step == 2).to(angle.dtype) - (step == 1).to(angle.dtype))
    sin, cos = torch.sin(angle)[:, None, None], torch.cos(angle)[:, None, None]
    return identity(len(angle), 4, angle) + sin * cross + (1 - cos) * (cross @ cross)


def saturate(factor: Tensor) -> Tensor:
    """(n, 4, 4): scale the distance to the gray diagonal."""
    eye, grey = identity(len(factor), 4, factor), _grey_axis(factor)
    away = torch.diag(_of_colours(factor)) - grey
    return eye + (factor[:, None, None] - 1) * away
