"""Every map onto the orthogonal group: its slope, its oracle, its start, its accuracy in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.linalg import polar_factor, rotations

COMPACT = [rotations.cayley, rotations.matrix_exp, rotations.householder]
SQUARE = [rotations.qr, rotations.gram_schmidt, rotations.polar, rotations.polar_newton_schulz]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def square(size: int, seed: int) -> Tensor:
    return random(size, size, seed=seed) + 2 * torch.eye(size, dtype=torch.float64)


@given(st.integers(1, 7), st.integers(0, 10**6), st.sampled_from(range(7)))
@settings(max_examples=80, deadline=None)
def test_all_maps_are_orthogonal(size: int, seed: int, which: int) -> None:
    if which < 3:
        q = COMPACT[which](random(size * (size - 1) // 2, seed=seed), size)
        assert float(torch.linalg.det(q)) == pytest.approx(1.0)
    else:
        q = SQUARE[which - 3](square(size, seed))
    torch.testing.assert_close(q @ q.mT, torch.eye(size, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("make", COMPACT)
def test_zeros_are_no_rotation_and_slopes_are_right(make: Callable[[Tensor, int], Tensor]) -> None:
    torch.testing.assert_close(make(torch.zeros(2, 10), 5), torch.eye(5).repeat(2, 1, 1))
    for numbers in (random(2, 10, seed=1), torch.zeros(2, 10, dtype=torch.float64)):
        assert torch.autograd.gradcheck(lambda x: make(x, 5), (numbers.requires_grad_(),))


@pytest.mark.parametrize("make", SQUARE)
def test_the_identity_is_no_rotation_and_slopes_are_right(make: Callable[[Tensor], Tensor]) -> None:
    torch.testing.assert_close(make(torch.eye(5).repeat(2, 1, 1)), torch.eye(5).repeat(2, 1, 1))
    for matrix in (square(5, 1).repeat(2, 1, 1), torch.eye(4, dtype=torch.float64)):
        assert torch.autograd.gradcheck(make, (matrix.requires_grad_(),), eps=1e-6, atol=1e-4)


def test_exponential_and_cayley_are_their_definitions() -> None:
    numbers = random(10)
    a = torch.zeros(5, 5, dtype=torch.float64)
    a[tuple(torch.triu_indices(5, 5, 1))] = numbers
    a = a - a.mT
    torch.testing.assert_close(rotations.matrix_exp(numbers, 5), torch.matrix_exp(a))
    eye = torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(rotations.cayley(numbers, 5), torch.inverse(eye - a / 2) @ (eye + a / 2))


def test_reflections_are_their_plain_product() -> None:
    vectors = random(6, 4).tril(-1) + torch.eye(6, 4, dtype=torch.float64)
    product = torch.eye(6, dtype=torch.float64)
    for v in vectors.T:
        product = product @ (torch.eye(6, dtype=torch.float64) - 2 * torch.outer(v, v) / v.square().sum())
    torch.testing.assert_close(rotations.reflections(vectors), product[:, :4])


def test_gram_schmidt_is_the_qr_of_the_transpose() -> None:
    # reference A4: the two published variants are one map
    a = square(9, 3)
    torch.testing.assert_close(rotations.gram_schmidt(a), rotations.qr(a.mT).mT)
    triangle = rotations.qr(a).mT @ a
    assert (triangle.diagonal() > 0).all()
    torch.testing.assert_close(triangle, triangle.triu())


def test_polar_is_the_nearest_orthogonal_matrix() -> None:
    a = square(6, 5)
    ours = float((a - rotations.polar(a)).norm())
    for seed in range(30):
        assert ours <= float((a - rotations.qr(rotations.polar(a) + 0.1 * random(6, 6, seed=seed))).norm())


@pytest.mark.parametrize("size", [27, 144])
def test_float32_rotations_keep_lengths_to_a_millionth(size: int) -> None:
    # one pass of Gram-Schmidt leaves 6e-5 at 144 and condition 200 (reference A4)
    rng = torch.Generator().manual_seed(0)
    hard = torch.randn(size, size, generator=rng)
    made = [rotations.qr(hard), rotations.gram_schmidt(hard), rotations.polar(hard)]
    made.append(rotations.polar_newton_schulz(torch.eye(size) + 0.3 * hard / size**0.5))
    made += [make(0.3 * torch.randn(size * (size - 1) // 2, generator=rng), size) for make in COMPACT]
    for q in made:
        values = torch.linalg.svdvals(q.double())
        assert float((values - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("make", [rotations.qr, rotations.gram_schmidt, rotations.polar])
@pytest.mark.parametrize("matrix", [torch.zeros(4, 4), torch.ones(4, 4), torch.diag(torch.tensor([1.0, 0, 2, 0]))])
def test_singular_parameters_still_give_a_rotation_and_finite_slopes(
    make: Callable[[Tensor], Tensor], matrix: Tensor
) -> None:
    x = matrix.clone().requires_grad_()
    q = make(x)
    torch.testing.assert_close(q @ q.mT, torch.eye(4), atol=1e-5, rtol=0)
    (q * torch.arange(16.0).view(4, 4)).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("make", [*SQUARE, *(lambda x, f=f: f(x[..., 0, :], 4) for f in COMPACT)])
def test_compiles_into_one_graph(make: Callable[[Tensor], Tensor]) -> None:
    x = (torch.eye(6) * 2 + 0.1).requires_grad_()
    other = x.detach().clone().requires_grad_()
    probe = torch.arange(36.0).view(6, 6)

    def loss(matrix: Tensor) -> Tensor:
        q = make(matrix)
        return (q * probe[: q.shape[-2], : q.shape[-1]]).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    one, two = loss(x), compiled(other)
    one.backward()
    two.backward()
    torch.testing.assert_close(two, one)
    torch.testing.assert_close(other.grad, x.grad, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("make", [*SQUARE, polar_factor])
@pytest.mark.parametrize("size", [1, 4])
def test_second_derivatives_forward_mode_and_torch_func(make: Callable[[Tensor], Tensor], size: int) -> None:
    x, along = square(size, 3), random(size, size, seed=4)
    weight = random(size, size, seed=5)

    def value(matrix: Tensor) -> Tensor:
        return (make(matrix).sin() * weight).sum()

    def slope(matrix: Tensor) -> Tensor:
        leaf = matrix.clone().requires_grad_()
        return torch.autograd.grad(value(leaf), leaf)[0]

    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(value(leaf), leaf, create_graph=True)
    (second,) = torch.autograd.grad((first * along).sum(), leaf, allow_unused=size == 1, materialize_grads=size == 1)
    numeric = (value(x + 1e-5 * along) - value(x - 1e-5 * along)) / 2e-5
    torch.testing.assert_close(second, (slope(x + 1e-5 * along) - slope(x - 1e-5 * along)) / 2e-5, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(torch.func.jvp(value, (x,), (along,))[1], numeric, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(torch.func.grad(value)(x), slope(x))
    both = torch.stack([x, 2 * x + along])
    torch.testing.assert_close(torch.func.vmap(value)(both), torch.stack([value(one) for one in both]))


@pytest.mark.parametrize("make", [rotations.qr, rotations.gram_schmidt, polar_factor, rotations.polar_newton_schulz])
def test_backward_inside_autocast_is_exact(make: Callable[[Tensor], Tensor]) -> None:
    found = []
    for enabled in (False, True):
        leaf = square(6, 1).float().requires_grad_()
        value = (make(leaf) * random(6, 6, seed=2).float()).sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value.backward()
        found.append(leaf.grad)
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-5)
