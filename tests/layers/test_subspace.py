"""The latent subspace against sums written out, and what constraints, rules and penalties make of its basis."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan import gradients, weights
from orthogan.layers.subspace import LatentSubspace
from orthogan.penalties.kernel import soft_orthogonality

SHAPE = (2, 3, 4)


def layer_of(dims: int = 3, *, seed: int = 0) -> LatentSubspace:
    """In float64, with an offset that is not zero and importances that are not in order."""
    torch.manual_seed(seed)
    layer = LatentSubspace(dims, SHAPE).double()
    nn.init.normal_(layer.L)
    nn.init.normal_(layer.mu)
    return layer


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_output_is_the_offset_plus_the_weighted_basis_images(dims: int, n: int, seed: int) -> None:
    layer = layer_of(dims, seed=seed)
    z = torch.randn(n, dims, dtype=torch.float64)
    expected = torch.empty(n, *SHAPE, dtype=torch.float64)
    for i in range(n):
        expected[i] = layer.mu.detach().reshape(SHAPE)
        for k in range(dims):
            expected[i] += float(z[i, k] * layer.L.detach()[k]) * layer.U.detach()[k].reshape(SHAPE)
    torch.testing.assert_close(layer(z), expected)


@pytest.mark.parametrize("dims", [1, 6, 24])
def test_it_starts_with_orthonormal_rows_the_published_importances_and_no_offset(dims: int) -> None:
    layer = LatentSubspace(dims, SHAPE)
    torch.testing.assert_close(layer.basis @ layer.basis.T, torch.eye(dims), atol=1e-5, rtol=0)
    assert layer.L.tolist() == [3.0 * (dims - k) for k in range(dims)]
    assert float(layer.mu.detach().abs().max()) == 0
    assert layer.orthogonality_error() < 1e-5


def test_the_gradients_are_those_of_finite_differences() -> None:
    layer = layer_of()
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    names = list(dict(layer.named_parameters()))

    def function(z: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (z,))

    values = [p.detach().clone().requires_grad_(True) for p in layer.parameters()]
    assert torch.autograd.gradcheck(function, (z, *values))
    layer.U.data.mul_(1.3)
    assert torch.autograd.gradcheck(lambda u: soft(layer, u), (layer.U.detach().clone().requires_grad_(True),))


def soft(layer: LatentSubspace, u: Tensor) -> Tensor:
    twin = copy.deepcopy(layer)
    del twin.U
    twin.U = u
    return twin.penalty()


def test_the_penalty_is_the_sum_of_squares_and_its_root_the_error() -> None:
    layer = layer_of()
    layer.U.data.add_(0.3 * torch.randn_like(layer.U))
    u = layer.U.detach()
    expected = sum((float(u[i] @ u[j]) - (i == j)) ** 2 for i in range(3) for j in range(3))
    assert float(layer.penalty().detach()) == pytest.approx(expected)
    assert layer.orthogonality_error() == pytest.approx(expected**0.5)
    torch.testing.assert_close(layer.penalty(), soft_orthogonality(layer.U, "rows"))


def test_the_penalty_alone_makes_the_rows_orthonormal() -> None:
    layer = layer_of()
    layer.U.data.mul_(0.7).add_(0.2 * torch.randn_like(layer.U))
    before = layer.orthogonality_error()
    optimizer = torch.optim.SGD([layer.U], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        layer.penalty().backward()
        optimizer.step()
    assert before > 0.3
    assert layer.orthogonality_error() < 1e-6


@pytest.mark.parametrize("u", [torch.zeros(3, 24), torch.ones(3, 24), torch.eye(3, 24) * 1e-20], ids=["0", "1", "tiny"])
def test_a_basis_without_full_rank_leaves_everything_finite(u: Tensor) -> None:
    layer = LatentSubspace(3, SHAPE)
    layer.U.data.copy_(u)
    out = layer(torch.randn(2, 3))
    (out.square().sum() + layer.penalty()).backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
    gram = u @ u.T - torch.eye(3)
    assert layer.orthogonality_error() == pytest.approx(float(gram.norm()))


@pytest.mark.parametrize("method", ["qr", "householder", "cayley", "polar", "bjorck"])
@pytest.mark.parametrize("dims", [1, 3])
def test_a_constraint_keeps_the_rows_orthonormal_through_large_steps(method: str, dims: int) -> None:
    torch.manual_seed(0)
    layer = LatentSubspace(dims, SHAPE)
    start = layer.basis.detach().clone()
    weights.orthogonal(layer, "U", method=method)
    torch.testing.assert_close(layer.basis.detach(), start, atol=1e-4, rtol=0)
    free = LatentSubspace(dims, SHAPE)
    free.load_state_dict({"U": start, "L": layer.L.detach(), "mu": layer.mu.detach()})
    target = torch.randn(8, *SHAPE)
    z = torch.randn(8, dims)
    for one in (layer, free):
        optimizer = torch.optim.SGD(one.parameters(), lr=1e-3)
        for _ in range(5):
            optimizer.zero_grad()
            (one(z) - target).square().sum().backward()
            optimizer.step()
    assert free.orthogonality_error() > 0.03
    assert layer.orthogonality_error() < (0.01 if method == "bjorck" else 1e-5)
    assert float((layer.basis.detach() - start).abs().max()) > 1e-3
    assert layer.basis.shape == (dims, 24)


def test_looking_at_a_constrained_basis_moves_nothing() -> None:
    layer = weights.orthogonal(LatentSubspace(3, SHAPE), "U", method="bjorck")
    assert isinstance(layer, LatentSubspace)
    nn.init.normal_(layer.parametrizations.U.original)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    looks = [layer.basis, layer.penalty(), layer.orthogonality_error()]
    assert len(looks) == 3
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    layer(torch.randn(1, 3))  # a forward in training does
    assert not all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_a_gradient_rule_takes_the_basis() -> None:
    layer = LatentSubspace(3, SHAPE)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    gradients.NearestOrthogonalGradient(optimizer, [("U", layer.U)])
    before = layer.U.detach().clone()
    layer(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    step = before - layer.U.detach()
    torch.testing.assert_close(step @ step.T, torch.eye(3), atol=1e-4, rtol=0)


def test_half_precision_is_worked_on_in_float32() -> None:
    layer = layer_of().float()
    z = torch.randn(4, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, half = layer(z), layer(z.bfloat16())
    assert torch.equal(inside, layer(z))
    assert torch.equal(half, layer(z.bfloat16().float()).bfloat16())
    low = copy.deepcopy(layer).bfloat16()
    assert low(z.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(low(z.bfloat16()).float(), layer(z), atol=0.1, rtol=0.05)


@pytest.mark.parametrize("constrained", [False, True])
def test_deepcopy_and_state_dict_carry_the_same_function(constrained: bool) -> None:
    def make(seed: int) -> LatentSubspace:
        layer = layer_of(seed=seed)
        return weights.orthogonal(layer, "U") if constrained else layer

    layer, other = make(0), make(1)
    z = torch.randn(2, 3, dtype=torch.float64)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    assert not torch.equal(other(z), layer(z))
    other.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(layer)
    assert torch.equal(other(z), layer(z))
    assert torch.equal(twin(z), layer(z))
    twin.L.data.add_(1)
    assert not torch.equal(twin(z), layer(z))


@pytest.mark.parametrize("constrained", [False, True])
def test_it_compiles_into_one_graph(constrained: bool) -> None:
    eager = layer_of()
    if constrained:
        weights.orthogonal(eager, "U")
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    z = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(compiled(z), eager(z))
    compiled(z).square().sum().backward()
    eager(z).square().sum().backward()
    for mine, other in zip(twin.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_two_forwards_before_one_backward_add_their_gradients() -> None:
    layer = weights.orthogonal(layer_of(), "U", method="bjorck")
    z = torch.randn(2, 1, 3, dtype=torch.float64)
    assert isinstance(layer, LatentSubspace)
    (layer(z[0]).square().sum() + layer(z[1]).square().sum()).backward()
    raw = layer.parametrizations.U.original
    assert torch.isfinite(raw.grad).all()
    assert float(raw.grad.norm()) > 0
    plain = layer_of()
    (plain(z[0]).square().sum() + plain(z[1]).square().sum()).backward()
    both = layer_of()
    both(z.squeeze(1)).square().sum().backward()
    torch.testing.assert_close(plain.U.grad, both.U.grad)


@pytest.mark.parametrize(
    ("dims", "shape", "message"),
    [(0, SHAPE, "dims is 0"), (25, SHAPE, "dims is 25.*24 numbers"), (1, (2, 3), r"\(2, 3\)"), (1, (2, 0, 3), "0")],
)
def test_sizes_that_cannot_be_are_refused(dims: int, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LatentSubspace(dims, shape)
