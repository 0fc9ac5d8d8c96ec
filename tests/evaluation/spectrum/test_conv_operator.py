"""The spectrum of a convolution against the dense matrix of the same map."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from orthogan.evaluation.spectrum.conv_operator import conv_operator_norm, conv_singular_values
from tests.fixtures.convolutions import dense


def random_kernel(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, list[int], list[int], int, list[int]]:
    axes = draw(st.integers(1, 2))
    groups, out, inputs = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    strides = [draw(st.integers(1, 3)) for _ in range(axes)]
    sizes = [s * draw(st.integers(1, 3)) for s in strides]
    dilations = [draw(st.integers(1, 2)) for _ in range(axes)]
    taps = [draw(st.integers(1, 4)) for _ in range(axes)]
    kernel = random_kernel(out * groups, inputs, *taps, seed=draw(st.integers(0, 10**6)))
    return kernel, sizes, strides, groups, dilations


@given(cases())
@settings(max_examples=80, deadline=None)
def test_values_and_norm_are_those_of_the_dense_matrix(
    case: tuple[Tensor, list[int], list[int], int, list[int]],
) -> None:
    kernel, sizes, strides, groups, dilations = case
    matrix = dense(kernel, sizes, strides, groups, dilations)
    want = torch.linalg.svdvals(matrix)
    got = conv_singular_values(kernel, sizes, strides, groups, dilation=dilations)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    norm = conv_operator_norm(kernel, sizes, strides, groups, dilation=dilations)
    torch.testing.assert_close(norm, want[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("size", "stride", "groups"), [(4, 1, 1), (6, 1, 2), (4, 2, 1), (8, 2, 2), (5, 1, 1)])
def test_usual_kernels_even_and_odd_sizes(size: int, stride: int, groups: int) -> None:
    kernel = random_kernel(4, 4 // groups, 3, 3)
    want = torch.linalg.svdvals(dense(kernel, [size] * 2, [stride] * 2, groups, [1, 1]))
    torch.testing.assert_close(conv_singular_values(kernel, size, stride, groups), want)


def test_three_axes() -> None:
    kernel = random_kernel(2, 3, 3, 2, 1)
    want = torch.linalg.svdvals(dense(kernel, [2, 4, 2], [1, 2, 2], 1, [1, 1, 1]))
    torch.testing.assert_close(conv_singular_values(kernel, (2, 4, 2), (1, 2, 2)), want)
    torch.testing.assert_close(conv_operator_norm(kernel, (2, 4, 2), (1, 2, 2)), want[0])


def test_torchs_own_circular_layer_stretches_no_image_further() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular", bias=False, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, torch.zeros(1, 3, 6, 6, dtype=torch.float64))
    assert isinstance(jacobian, Tensor)
    matrix = jacobian.reshape(5 * 36, 3 * 36)
    torch.testing.assert_close(conv_singular_values(layer.weight, 6), torch.linalg.svdvals(matrix))


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (2, 2)])
def test_a_transposed_convolution_has_the_values_of_its_adjoint(stride: int, groups: int) -> None:
    weight, small = random_kernel(4, 3, 4, 4), 3
    size = small * stride
    x = torch.eye(4 * small**2, dtype=torch.float64).reshape(-1, 4, small, small)
    y = functional.conv_transpose2d(x, weight, stride=stride, groups=groups)
    for axis in (2, 3):  # what sticks out of the torus comes in on the other side
        folded = y.new_zeros([size if a == axis else n for a, n in enumerate(y.shape)])
        y = folded.index_add(axis, torch.arange(y.shape[axis]) % size, y)
    want = torch.linalg.svdvals(y.reshape(len(x), -1))
    torch.testing.assert_close(conv_singular_values(weight, size, stride, groups), want)
    torch.testing.assert_close(conv_operator_norm(weight, size, stride, groups), want[0])


@given(cases())
@settings(max_examples=80, deadline=None)
def test_the_matrix_of_the_kernel_bounds_the_norm(case: tuple[Tensor, list[int], list[int], int, list[int]]) -> None:
    kernel, sizes, strides, groups, dilations = case
    matrix_norm = torch.linalg.matrix_norm(kernel.flatten(1), 2)
    norm = conv_operator_norm(kernel, sizes, strides, groups, dilation=dilations)
    assert float(norm) <= float(matrix_norm) * math.sqrt(math.prod(kernel.shape[2:])) * (1 + 1e-9)


def test_a_box_filter_reaches_that_bound_and_a_shift_is_an_isometry() -> None:
    assert float(conv_operator_norm(torch.ones(1, 1, 3, 3), 8)) == pytest.approx(9.0)  # the matrix has norm 3
    shift = torch.zeros(2, 2, 3, 3)
    shift[0, 1, 0, 2] = shift[1, 0, 2, 1] = 1
    torch.testing.assert_close(conv_singular_values(shift, 5), torch.ones(50))


@pytest.mark.parametrize("scale", [0.0, 1e-25, 1e25])
def test_zero_tiny_and_huge_kernels_stay_finite(scale: float) -> None:
    kernel = (random_kernel(3, 2, 3, 3).float() * scale).requires_grad_(True)
    norm = conv_operator_norm(kernel, 4)
    want = float(conv_singular_values(kernel.detach().double(), 4)[0])
    assert float(norm.detach()) == pytest.approx(want, rel=1e-5)
    assert bool(torch.isfinite(torch.autograd.grad(norm, kernel)[0]).all())
    assert float(conv_singular_values(kernel.detach(), 4)[0]) == pytest.approx(want, rel=1e-5)


def test_gradient() -> None:
    kernel = random_kernel(2, 3, 3, 2).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda k: conv_operator_norm(k, (4, 6), (1, 2)), (kernel,))
    assert torch.autograd.gradcheck(lambda k: conv_singular_values(k, 4, 2).sum(), (kernel,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_least_float32_also_under_autocast(dtype: torch.dtype) -> None:
    kernel = random_kernel(4, 4, 3, 3).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        norm, values = conv_operator_norm(kernel, 6), conv_singular_values(kernel, 6)
    assert norm.dtype == values.dtype == torch.float32
    exact = conv_singular_values(kernel.double(), 6)
    torch.testing.assert_close(values, exact.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm, exact[0].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "size", "stride", "groups", "parts"),
    [
        ((4, 3), 8, 1, 1, ["(4, 3)", "out, in/groups"]),
        ((4, 3, 3, 3), 9, 2, 1, ["size is 9", "stride 2", "10"]),
        ((4, 3, 3, 3), (8, 8, 8), 1, 1, ["size is (8, 8, 8)", "2 axes"]),
        ((4, 3, 3, 3), 8, 0, 1, ["stride is 0"]),
        ((4, 3, 3, 3), 8, 1, 3, ["groups is 3", "4 outputs"]),
    ],
)
def test_what_does_not_fit_is_named(
    shape: tuple[int, ...], size: int, stride: int, groups: int, parts: list[str]
) -> None:
    for function in (conv_singular_values, conv_operator_norm):
        with pytest.raises(ValueError) as caught:
            function(torch.zeros(shape), size, stride, groups)
        assert all(part in str(caught.value) for part in parts)
