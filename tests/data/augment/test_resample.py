from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from orthogan.data.augment.matrices import quarter_turns, rotate2d, scale2d, translate2d
from orthogan.data.augment.resample import SYM6, affine, downsample, sample, upsample
from orthogan.rng import generator

ONE = torch.ones(1, dtype=torch.float64)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator("cpu", 0), dtype=torch.float64)


def smooth(side: int, inverse: Tensor | None = None) -> Tensor:
    """A wave of 16 pixels' length, symmetric about no axis, shown through a transformation."""
    place = torch.arange(side, dtype=torch.float64) + 0.5 - side / 2
    grid = torch.stack([place.expand(side, side), place[:, None].expand(side, side), torch.ones(side, side)])
    x, y, _ = torch.einsum("rc,chw->rhw", torch.eye(3).double() if inverse is None else inverse, grid.double())
    return torch.sin(2 * math.pi * (x + 0.3 * y) / 16 + 0.4)[None, None]


def test_filter_is_orthonormal_with_six_vanishing_moments() -> None:
    taps = torch.tensor(SYM6, dtype=torch.float64)
    for shift in range(6):
        product = (taps[2 * shift :] * taps[: 12 - 2 * shift]).sum()
        assert product == pytest.approx(float(shift == 0), abs=1e-10)
    signs = (-1.0) ** torch.arange(12, dtype=torch.float64)
    for moment in range(6):
        assert float((signs * taps * torch.arange(12.0) ** moment).sum()) == pytest.approx(0, abs=1e-5)


def test_up_and_down_is_the_identity_away_from_the_border() -> None:
    images = noise(2, 3, 12, 10)
    padded = F.pad(upsample(images), (5, 5, 5, 5))
    torch.testing.assert_close(downsample(padded)[:, :, 3:-3, 3:-3], images[:, :, 3:-3, 3:-3], atol=1e-10, rtol=0)


def test_upsampling_keeps_constants() -> None:
    torch.testing.assert_close(
        upsample(torch.full((1, 1, 6, 6), 0.7).double()), torch.full((1, 1, 12, 12), 0.7).double()
    )


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 3, 6)])
def test_sample_equals_torch_and_has_all_derivatives(shape: tuple[int, ...]) -> None:
    images = noise(*shape).requires_grad_()
    grid = noise(shape[0], 4, 3, 2)  # about a third lies outside
    expected = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    assert torch.equal(sample(images, grid), expected)

    def run(x: Tensor) -> Tensor:
        return sample(x, grid) ** 3

    assert torch.autograd.gradcheck(run, images)
    assert torch.autograd.gradgradcheck(run, images)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_operators_keep_the_rules_of_the_registry(layout: torch.memory_format) -> None:
    """What they say of their results without computing them is true, also under torch.compile."""
    images, grid = noise(2, 3, 5, 4).contiguous(memory_format=layout).requires_grad_(), noise(2, 4, 3, 2)
    torch.library.opcheck(torch.ops.orthogan.sample, (images, grid))
    samples = noise(2, 3, 4, 3).contiguous(memory_format=layout).requires_grad_()
    torch.library.opcheck(torch.ops.orthogan.spread, (samples, grid, 5, 4))


def test_derivatives_of_third_order() -> None:
    images, grid = noise(1, 1, 4, 4).requires_grad_(), noise(1, 3, 3, 2)
    value = sample(images, grid).pow(4).sum()
    fourth = value.item()
    for order in range(1, 4):
        (gradient,) = torch.autograd.grad(value, images, create_graph=True)
        value = (gradient * images).sum()  # Euler: for a function of degree 4 this is 4 times the function
        assert value.item() == pytest.approx(fourth * 4**order, rel=1e-9)


@pytest.mark.parametrize(
    ("inverse", "by_hand"),
    [
        (scale2d(-ONE, ONE), lambda x: x.flip(3)),
        (quarter_turns(ONE), lambda x: torch.rot90(x, 1, (2, 3))),
        (quarter_turns(3 * ONE), lambda x: torch.rot90(x, 3, (2, 3))),
        (quarter_turns(2 * ONE) @ scale2d(-ONE, ONE), lambda x: x.flip(2)),
        (translate2d(2 * ONE, -3 * ONE), lambda x: F.pad(x, (3, 3, 3, 3), mode="reflect")[:, :, 0:8, 5:13]),
    ],
)
def test_blits_are_exact(inverse: Tensor, by_hand: object) -> None:
    images = noise(1, 3, 8, 8)
    assert callable(by_hand)
    expected = by_hand(images)
    result = affine(images, inverse)
    inner = (slice(None), slice(None), slice(3, None), slice(0, 6))  # what is mirrored at a shift has its own test
    torch.testing.assert_close(result[inner], expected[inner], atol=1e-12, rtol=0)


def test_edges_are_mirrored_outside_of_the_last_pixel() -> None:
    row = torch.arange(6.0).double().expand(1, 1, 6, 6)
    shifted = affine(row, translate2d(3 * ONE, 0 * ONE))
    torch.testing.assert_close(shifted[0, 0, 2], torch.tensor([3.0, 4, 5, 5, 4, 3]).double())


@pytest.mark.parametrize(
    "inverse",
    [
        translate2d(0.5 * ONE, -1.25 * ONE),
        rotate2d(0.3 * ONE),
        scale2d(0.8 * ONE, 0.8 * ONE),
        scale2d(1.2 * ONE, ONE / 1.2) @ rotate2d(-0.7 * ONE) @ translate2d(2.3 * ONE, ONE),
    ],
)
def test_smooth_pictures_are_moved_as_the_formula_says(inverse: Tensor) -> None:
    result = affine(smooth(64), inverse)
    expected = smooth(64, inverse[0])
    torch.testing.assert_close(result[..., 20:44, 20:44], expected[..., 20:44, 20:44], atol=0.01, rtol=0)


def test_affine_has_second_derivatives() -> None:
    images = noise(2, 1, 4, 4).requires_grad_()
    inverse = torch.cat([rotate2d(0.4 * ONE), scale2d(-ONE, ONE)])

    def run(x: Tensor) -> Tensor:
        return affine(x, inverse) ** 2

    assert torch.autograd.gradcheck(run, images)
    assert torch.autograd.gradgradcheck(run, images)


@pytest.mark.gpu
def test_affine_on_a_gpu_equals_that_on_the_cpu() -> None:
    images, inverse = noise(2, 3, 16, 16), rotate2d(0.4 * torch.ones(2, dtype=torch.float64))
    here, there = images.clone().requires_grad_(), images.cuda().requires_grad_()
    torch.testing.assert_close(affine(there, inverse.cuda()).cpu(), affine(here, inverse))
    for x, m in ((here, inverse), (there, inverse.cuda())):
        (gradient,) = torch.autograd.grad(affine(x, m).pow(3).sum(), x, create_graph=True)
        gradient.pow(2).sum().backward()
    assert here.grad is not None
    assert there.grad is not None
    torch.testing.assert_close(there.grad.cpu(), here.grad)
