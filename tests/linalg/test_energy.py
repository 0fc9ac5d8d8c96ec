"""Hyperspherical energy against a double loop, a closed form and its invariances."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.linalg.energy import hyperspherical_energy

OPTIONS: list[dict[str, Any]] = [
    {"angular": angular, "half_space": half_space, "reduction": reduction}
    for angular, half_space, reduction in itertools.product((False, True), (False, True), ("mean", "sum"))
]


def random(m: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def brute(w: Tensor, s: float, angular: bool, half_space: bool, reduction: str) -> float:
    """The papers' formula, a pair at a time."""
    vectors = [(v / v.norm()).tolist() for v in w]
    vectors += [[-x for x in v] for v in vectors] if half_space else []
    total, pairs = 0.0, 0
    for i, a in enumerate(vectors):
        for j, b in enumerate(vectors):
            if i == j:
                continue
            d = math.dist(a, b)
            d = 2 * math.asin(min(1.0, d / 2)) if angular else d
            total += math.log(1 / d) if s == 0 else d**-s
            pairs += 1
    return total / max(1, pairs) if reduction == "mean" else total


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 10**6), st.sampled_from([0, 1, 2, 0.5, 3.7]))
@settings(max_examples=40, deadline=None)
def test_the_energy_is_that_of_a_double_loop(m: int, n: int, seed: int, s: float) -> None:
    w = random(m, n, seed)
    for options in OPTIONS:
        got = float(hyperspherical_energy(w, s, **options, chunk=2))
        # the angle of a vector and its own negative is taken at a distance of rounding from pi
        assert got == pytest.approx(brute(w, s, **options), rel=1e-6, abs=1e-7)


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 2]))
@settings(max_examples=15, deadline=None)
def test_rotation_and_the_length_of_rows_change_nothing(seed: int, s: float) -> None:
    w = random(7, 5, seed)
    rotation = torch.linalg.qr(random(5, 5, seed + 1)).Q
    lengths = random(7, 1, seed + 2).exp()
    for options in OPTIONS:
        expected = hyperspherical_energy(w, s, **options)
        torch.testing.assert_close(hyperspherical_energy(lengths * w @ rotation.mT, s, **options), expected)


@pytest.mark.parametrize("d", [10, 27])
def test_gaussian_rows_have_the_energy_of_the_uniform_distribution(d: int) -> None:
    assert float(hyperspherical_energy(random(1500, d), 2)) == pytest.approx((d - 2) / (2 * (d - 3)), rel=2e-3)


def test_descent_finds_the_regular_simplex() -> None:
    w = random(4, 3).requires_grad_()
    optimizer = torch.optim.LBFGS([w], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = hyperspherical_energy(w, 1)
        loss.backward()
        return loss

    optimizer.step(closure)
    # four points on a sphere: the tetrahedron, whose edges are sqrt(8/3)
    assert float(hyperspherical_energy(w.detach(), 1)) == pytest.approx(math.sqrt(3 / 8), rel=1e-6)


@pytest.mark.parametrize("options", OPTIONS)
def test_blocks_change_neither_value_nor_gradient(options: dict) -> None:
    w = random(9, 4).requires_grad_()
    found = []
    for chunk in (1, 4, 9, 1000):
        value = hyperspherical_energy(w, 1.5, **options, chunk=chunk)
        found.append((value.detach(), *torch.autograd.grad(value, w)))
    for value, gradient in found[1:]:
        torch.testing.assert_close(value, found[0][0])
        torch.testing.assert_close(gradient, found[0][1])


@pytest.mark.parametrize("half_space", [False, True])
@pytest.mark.parametrize("angular", [False, True])
@pytest.mark.parametrize("s", [0, 1, 2, 3.7])
def test_gradients_are_the_numerical_ones(s: float, angular: bool, half_space: bool) -> None:
    def energy(w: Tensor) -> Tensor:
        return hyperspherical_energy(w, s, angular=angular, half_space=half_space, chunk=3)

    assert torch.autograd.gradcheck(energy, (random(4, 3).requires_grad_(),))


def test_leading_dimensions_are_a_batch() -> None:
    w = torch.stack([random(5, 3, seed) for seed in range(4)]).reshape(2, 2, 5, 3)
    got = hyperspherical_energy(w, half_space=True, chunk=2)
    assert got.shape == (2, 2)
    torch.testing.assert_close(got[1, 0], hyperspherical_energy(w[1, 0], half_space=True))


def test_no_block_is_kept_for_backward() -> None:
    sizes: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    m, n, chunk = 512, 3, 64
    w = random(m, n).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = hyperspherical_energy(w, 2, chunk=chunk)
    assert max(sizes) <= m * n < m * chunk
    value.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("s", [0, 1, 2, 40.0])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]],
        [[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]],
        [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
        [[0.0, 0.0, 0.0]],
    ],
    ids=["coincident", "antipodal", "zero", "one"],
)
def test_degenerate_rows_have_finite_energy_and_gradient(
    rows: list[list[float]], options: dict, s: float, dtype: torch.dtype
) -> None:
    w = torch.tensor(rows, dtype=dtype, requires_grad=True)
    value = hyperspherical_energy(w, s, **options)
    value.backward()
    assert value.isfinite()
    assert w.grad is not None
    assert w.grad.isfinite().all()
    assert (w.grad[w.detach().norm(dim=1) == 0] == 0).all()


def test_nearly_coincident_rows_are_pushed_apart() -> None:
    w = torch.tensor([[1.0, 0.0], [1.0, 0.01]], requires_grad=True)
    hyperspherical_energy(w, 2).backward()
    assert w.grad is not None
    assert w.grad[0, 1] > 0 > w.grad[1, 1]  # descent moves each away from the other


def test_a_single_row_has_no_energy_but_its_line_has() -> None:
    w = random(1, 3)
    assert float(hyperspherical_energy(w, 1)) == 0
    assert float(hyperspherical_energy(w, 1, half_space=True)) == pytest.approx(0.5)
    assert float(hyperspherical_energy(w, 1, half_space=True, reduction="sum")) == pytest.approx(1.0)


def test_half_precision_is_computed_in_float32_also_under_autocast() -> None:
    w = random(6, 40).bfloat16()
    expected = hyperspherical_energy(w.float(), 1)
    with torch.autocast("cpu", torch.bfloat16):
        got = hyperspherical_energy(w, 1)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_compiles_into_one_graph_with_its_gradient() -> None:
    def energy(w: Tensor) -> Tensor:
        return hyperspherical_energy(w, 0, half_space=True, chunk=4)

    w = random(7, 3).requires_grad_()
    expected, got = energy(w), torch.compile(energy, backend="aot_eager", fullgraph=True)(w)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, w), torch.autograd.grad(expected, w))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"s": -1}, "s is -1"),
        ({"s": float("inf")}, "s is inf"),
        ({"chunk": 0}, "chunk is 0"),
        ({"reduction": "max"}, "reduction is 'max': choose mean or sum"),
    ],
)
def test_refusals(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hyperspherical_energy(torch.eye(3), **options)
