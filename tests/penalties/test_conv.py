"""Orthogonal convolutions against the dense matrix of the circular convolution."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.penalties import conv_orthogonality, soft_orthogonality


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 0.5


def dense(weight: Tensor, strides: tuple[int, ...], positions: int, groups: int = 1) -> Tensor:
    """The circular convolution as a matrix (M * N, C * S N), N = positions^axes, an entry at a time."""
    filters, channels, *kernel = weight.shape
    sides = [s * positions for s in strides]
    outs = list(itertools.product(*(range(positions) for _ in kernel)))
    ins = {at: i for i, at in enumerate(itertools.product(*(range(side) for side in sides)))}
    matrix = torch.zeros(filters * len(outs), channels * groups * len(ins), dtype=weight.dtype)
    for (o, at), m in itertools.product(enumerate(outs), range(filters)):
        for c, tap in itertools.product(range(channels), itertools.product(*(range(k) for k in kernel))):
            read = tuple((a * s + t) % side for a, s, t, side in zip(at, strides, tap, sides, strict=True))
            channel = m // (filters // groups) * channels + c
            matrix[m * len(outs) + o, channel * len(ins) + ins[read]] += weight[m, c, *tap]
    return matrix


def residual(matrix: Tensor, outs: int) -> float:
    """||Gram - I||_F^2 of the smaller side, a position out."""
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return float((product - torch.eye(len(product))).square().sum()) / outs


@pytest.mark.parametrize(
    ("shape", "strides", "positions", "groups"),
    [
        ((2, 3, 3, 3), (1, 1), 5, 1),  # rows
        ((4, 2, 3, 3), (1, 1), 5, 1),  # columns
        ((3, 1, 3, 3), (2, 2), 3, 1),  # rows by the stride
        ((6, 1, 3, 3), (2, 2), 3, 1),  # columns
        ((3, 2, 4, 2), (1, 2), 7, 1),
        ((4, 1, 3, 2), (2, 1), 3, 1),
        ((2, 2, 5), (1,), 9, 1),
        ((5, 2, 5), (2,), 5, 1),
        ((2, 1, 2, 2, 2), (1, 1, 1), 3, 1),
        ((4, 2, 3), (1,), 5, 2),  # groups, rows
        ((6, 1, 3), (2,), 3, 2),  # groups, columns
        ((3, 1, 3), (1,), 5, 3),  # depthwise
        ((4, 2, 1, 1), (1, 1), 2, 1),
    ],
    ids=str,
)
def test_the_dense_circular_matrix_has_this_residual(
    shape: tuple[int, ...], strides: tuple[int, ...], positions: int, groups: int
) -> None:
    weight = random(*shape)
    expected = residual(dense(weight, strides, positions, groups), positions ** len(strides))
    assert float(conv_orthogonality(weight, strides, groups=groups)) == pytest.approx(expected, rel=1e-9)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_any_kernel_and_stride_is_never_below_zero(out: int, channels: int, k: int, stride: int, seed: int) -> None:
    weight = random(out, channels, k, seed=seed)
    value = float(conv_orthogonality(weight, stride))
    assert value >= -1e-12
    if stride <= k:
        positions = 2 * k
        assert value == pytest.approx(residual(dense(weight, (stride,), positions), positions), rel=1e-9, abs=1e-12)


def permutation(channels: int) -> Tensor:
    """Each filter moves one channel by its own shift and sign."""
    weight = torch.zeros(channels, channels, 3, 3, dtype=torch.float64)
    for m in range(channels):
        weight[m, (m + 1) % channels, m % 3, (2 * m) % 3] = (-1) ** m
    return weight


def test_orthogonal_convolutions_have_none() -> None:
    assert float(conv_orthogonality(permutation(4))) == 0
    one_by_one = torch.linalg.qr(random(5, 5)).Q.reshape(5, 5, 1, 1)
    assert float(conv_orthogonality(one_by_one)) == pytest.approx(0, abs=1e-20)
    assert float(conv_orthogonality(torch.nn.functional.pad(one_by_one, [2, 0, 1, 1]))) == pytest.approx(0, abs=1e-20)
    assert float(conv_orthogonality(permutation(4)[:2])) == 0  # rows left out
    twice = torch.cat([permutation(3), permutation(3).flip(0, 2)]) / 2**0.5
    assert float(conv_orthogonality(twice)) == pytest.approx(0, abs=1e-12)  # columns
    pixels = torch.eye(4, dtype=torch.float64).reshape(4, 1, 2, 2)  # space to depth
    assert float(conv_orthogonality(pixels, 2)) == 0
    assert float(conv_orthogonality(pixels, 3)) == 0  # gaps between the patches
    assert float(conv_orthogonality(pixels, 1)) > 1  # the same kernel overlaps itself


def test_a_circular_layer_with_none_keeps_the_norm() -> None:
    layer = torch.nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular", bias=False).double()
    layer.weight.data.copy_(permutation(4))
    x = random(2, 4, 7, 7)
    assert float(layer(x).norm()) == pytest.approx(float(x.norm()))


def test_the_authors_padding_misses_overlaps_at_shift_two() -> None:
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, :, 1] = torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
    assert float(conv_orthogonality(weight, padding=1)) == pytest.approx(0, abs=1e-20)
    assert float(conv_orthogonality(weight)) == pytest.approx(2 * 0.48**2)
    assert float(conv_orthogonality(weight)) == pytest.approx(residual(dense(weight, (1, 1), 5), 25))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_matrices_and_one_by_one_kernels_are_judged_on_the_smaller_side(shape: tuple[int, int]) -> None:
    matrix = random(*shape)
    expected = soft_orthogonality(matrix)
    torch.testing.assert_close(conv_orthogonality(matrix), expected)
    for stride in (1, 2):
        torch.testing.assert_close(conv_orthogonality(matrix.reshape(*shape, 1, 1), stride), expected)


def test_descent_reaches_an_orthogonal_convolution() -> None:
    weight = random(3, 4, 3).requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=300, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = conv_orthogonality(weight)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert float(conv_orthogonality(weight)) < 1e-8
    values = torch.linalg.svdvals(dense(weight.detach(), (1,), 6))
    torch.testing.assert_close(values, torch.ones_like(values), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride is 0"),
        ({"stride": (1, 1, 1)}, r"stride is \(1, 1, 1\): must be one number"),
        ({"padding": 1, "stride": 2}, "padding is 1: it must be a multiple of the stride 2"),
        ({"padding": -1}, "padding is -1"),
        ({"groups": 3}, "groups is 3: it must divide the 4 filters"),
    ],
)
def test_refusals(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conv_orthogonality(random(4, 2, 3, 3), **options)
    with pytest.raises(ValueError, match=r"3 to 5 dimensions"):
        conv_orthogonality(torch.ones(3))
