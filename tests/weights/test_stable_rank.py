"""Stable rank normalisation against the authors' form, brute force and the identities of its theory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan import weights
from orthogan.linalg import stable_rank
from orthogan.models.families.sngan import SNGANDiscriminator
from orthogan.weights import StableRankNorm, spectral_norm, stable_rank_norm


def constraint(layer: nn.Module) -> StableRankNorm:
    return layer.parametrizations.weight[0]


def raw(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


def published(w: Tensor, u: Tensor, v: Tensor, rank: float) -> Tensor:
    """Algorithm 2 written out, with its branch: R = W/sigma - u v^T, cut to norm sqrt(r - 1)."""
    sigma = u @ w @ v
    normal = w / sigma
    residual = normal - torch.outer(u, v)
    norm = residual.norm()
    if float(norm) <= (rank - 1) ** 0.5:
        return normal
    return torch.outer(u, v) + residual * (rank - 1) ** 0.5 / norm


def layer_of(m: int, n: int, seed: int, c: float, *, exact: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    layer = stable_rank_norm(nn.Linear(n, m, bias=False).double(), c=c)
    if exact:
        u, _, vt = torch.linalg.svd(raw(layer).detach())
        constraint(layer).u.copy_(u[:, 0])
        constraint(layer).v.copy_(vt[0])
    return layer.eval()


cases = st.tuples(st.integers(2, 8), st.integers(2, 8), st.integers(0, 10**6), st.floats(0.05, 1.0))


@given(cases)
@settings(max_examples=60, deadline=None)
def test_value_and_gradient_are_the_published_ones(case: tuple[int, int, int, float]) -> None:
    m, n, seed, c = case
    layer = layer_of(m, n, seed, c)
    k = constraint(layer)
    assume(k.target > 1)  # at 1 the published form has no slope; ours has
    probe = torch.randn(m, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    w = raw(layer).detach().clone().requires_grad_(True)
    expected = published(w, k.u, k.v, k.target)
    torch.testing.assert_close(layer.weight, expected)
    (want,) = torch.autograd.grad((expected * probe).sum(), w)
    (got,) = torch.autograd.grad((layer.weight * probe).sum(), raw(layer))
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9)


@given(cases)
@settings(max_examples=60, deadline=None)
def test_exact_vectors_give_exactly_the_target(case: tuple[int, int, int, float]) -> None:
    m, n, seed, c = case
    layer = layer_of(m, n, seed, c, exact=True)
    before, target = float(stable_rank(raw(layer).detach())), constraint(layer).target
    after = layer.weight.detach()
    assert float(stable_rank(after)) == pytest.approx(min(before, target), rel=1e-6)
    assert float(torch.linalg.svdvals(after)[0]) == pytest.approx(1.0, rel=1e-9)


def test_active_pins_the_frobenius_norm_whatever_the_vectors() -> None:
    layer = layer_of(12, 20, 0, 0.2)
    k = constraint(layer)
    for seed in range(5):
        rng = torch.Generator().manual_seed(seed)
        for buffer in (k.u, k.v):
            buffer.copy_(
                torch.nn.functional.normalize(torch.randn(len(buffer), generator=rng, dtype=buffer.dtype), dim=0)
            )
        if float(k.u @ raw(layer) @ k.v) < 0:
            k.u.neg_()
        assert float(k.scale(raw(layer).detach())) < 1
        assert float(layer.weight.square().sum()) == pytest.approx(k.target, rel=1e-9)


def test_the_active_gradient_is_orthogonal_to_the_top_direction_and_the_residual() -> None:
    layer = layer_of(10, 14, 1, 0.2)
    k = constraint(layer)
    probe = torch.randn(10, 14, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((layer.weight * probe).sum(), raw(layer))
    top = torch.outer(k.u, k.v)
    residual = raw(layer).detach() - (k.u @ raw(layer).detach() @ k.v) * top
    scale = float(gradient.norm())
    assert abs(float((gradient * top).sum())) < 1e-10 * scale
    assert abs(float((gradient * residual).sum())) < 1e-10 * scale * float(residual.norm())


def test_no_other_matrix_of_that_rank_and_top_value_is_nearer() -> None:
    # k = 1 (theorem 1): among matrices with sigma_1 as given and srank <= r this one is the nearest to W/sigma_1
    layer = layer_of(3, 4, 2, 0.5, exact=True)
    w = raw(layer).detach() / torch.linalg.svdvals(raw(layer).detach())[0]
    target = constraint(layer).target
    ours = float((w - layer.weight.detach()).norm())
    rng = torch.Generator().manual_seed(0)
    best = float("inf")
    for radius in (0.02, 0.1, 0.5):
        for _ in range(3000):
            noise = radius * torch.randn(3, 4, generator=rng, dtype=torch.float64)
            u, s, vt = torch.linalg.svd(layer.weight.detach() + noise, full_matrices=False)
            s = s / s[0]
            tail = s[1:].norm()
            s[1:] *= min(1.0, float((target - 1) ** 0.5 / tail))
            best = min(best, float((w - u @ torch.diag(s) @ vt).norm()))
    assert ours <= best + 1e-9
    assert best < 2 * ours + 0.1  # the search came near


def test_full_rank_target_is_spectral_normalisation() -> None:
    torch.manual_seed(3)
    plain = nn.Conv2d(4, 6, 3)
    one, two = stable_rank_norm(copy.deepcopy(plain), c=1.0), spectral_norm(copy.deepcopy(plain))
    constraint(two).u.copy_(constraint(one).u)
    constraint(two).v.copy_(constraint(one).v)
    torch.testing.assert_close(one.eval().weight, two.eval().weight)


@pytest.mark.parametrize("layer", [nn.Linear(8, 1), nn.Conv2d(3, 4, 1), nn.Embedding(2, 5)], ids=str)
@pytest.mark.parametrize("c", [0.05, 0.3])
def test_one_row_and_tiny_targets_are_handled(layer: nn.Module, c: float) -> None:
    # the authors' code takes the square root of c * min - 1 < 0 here
    layer = stable_rank_norm(copy.deepcopy(layer), c=c)
    assert constraint(layer).target == max(1.0, c * min(constraint(layer).view.rows, constraint(layer).view.columns))
    layer.weight.square().sum().backward()
    assert torch.isfinite(raw(layer).grad).all()
    matrix = constraint(layer).view.to(layer.eval().weight.detach())
    assert float(stable_rank(matrix)) <= constraint(layer).target * 1.05


@pytest.mark.parametrize("k", [0, 1, 2])
def test_a_single_row_learns_as_under_spectral_norm(k: int) -> None:
    # u v^T with constant u and v is the right value without a slope: the last layer of a discriminator stood still
    torch.manual_seed(0)
    plain = nn.Linear(8, 1, bias=False).double()
    one, two = stable_rank_norm(copy.deepcopy(plain), c=0.7, k=k), spectral_norm(copy.deepcopy(plain))
    x, y = torch.randn(16, 8, dtype=torch.float64), torch.randn(16, 1, dtype=torch.float64)
    optimizers = [torch.optim.SGD(layer.parameters(), lr=0.1) for layer in (one, two)]
    for _ in range(5):
        for layer, optimizer in zip((one, two), optimizers, strict=True):
            optimizer.zero_grad()
            (layer(x) - y).square().mean().backward()
            assert float(raw(layer).grad.norm()) > 1e-3
            optimizer.step()
    torch.testing.assert_close(one.weight, two.weight)


@pytest.mark.parametrize("k", [0, 1, 3])
def test_a_target_of_one_still_learns_and_stays_of_rank_one(k: int) -> None:
    torch.manual_seed(0)
    layer = stable_rank_norm(nn.Linear(3, 6, bias=False).double(), c=0.3, k=k)
    target = torch.outer(*(torch.nn.functional.normalize(torch.randn(n, dtype=torch.float64), dim=0) for n in (6, 3)))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.2)
    losses = []
    for _ in range(300):
        optimizer.zero_grad()
        loss = (layer.weight - target).square().sum()
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
    assert losses[-1] < 1e-3 * losses[0]
    values = torch.linalg.svdvals(layer.eval().weight.detach())
    assert float(values[0]) == pytest.approx(1.0)
    assert float(values[1]) < 1e-9
    weight = raw(layer).detach().clone().requires_grad_(True)
    assert torch.autograd.gradcheck(constraint(layer), (weight,))


def test_every_layer_of_a_discriminator_learns() -> None:
    torch.manual_seed(0)
    net = SNGANDiscriminator(resolution=32, image_channels=3, channels=16, num_classes=3)
    weights.apply(net, "stable_rank", c=0.2)
    net(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])).square().sum().backward()
    sizes = {name: float(p.grad.norm()) for name, p in net.named_parameters() if p.dim() > 1}
    assert min(sizes.values()) > 1e-3 * max(sizes.values()), sizes


@pytest.mark.parametrize("c", [0.3, 0.9])
def test_gradients_of_both_orders(c: float) -> None:
    layer = layer_of(4, 5, 4, c)
    weight = raw(layer).detach().clone().requires_grad_(True)
    assert torch.autograd.gradcheck(constraint(layer), (weight,))
    assert torch.autograd.gradgradcheck(constraint(layer), (weight,))


def test_one_iteration_from_a_cold_start_is_already_close() -> None:
    # reference figures: 128 x 1152, c = 0.3: realised stable rank 37.1 of 38.4 after one iteration
    torch.manual_seed(0)
    layer = nn.Linear(1152, 128, bias=False)
    stable_rank_norm(layer, c=0.3)
    k = constraint(layer)
    k.u.copy_(torch.nn.functional.normalize(torch.randn(128), dim=0))
    layer(torch.randn(1, 1152))
    layer.eval()
    assert float(stable_rank(layer.weight.detach())) == pytest.approx(38.4, rel=0.06)


@pytest.mark.parametrize("training", [True, False])
def test_compiles_into_one_graph(training: bool) -> None:
    torch.manual_seed(0)
    eager = stable_rank_norm(nn.Conv2d(2, 6, 3), c=0.3).train(training)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 2, 6, 6)
    for _ in range(3):
        torch.testing.assert_close(compiled(x), eager(x))
    torch.testing.assert_close(constraint(twin).u, constraint(eager).u)


def test_the_first_layers_of_sngan_at_initialisation() -> None:
    # the reference's table: stable rank at Glorot initialisation, and where c binds
    torch.manual_seed(0)
    net = SNGANDiscriminator(resolution=32, image_channels=3, channels=128)
    weights.apply(net, "stable_rank", c=0.7)
    found = weights.report(net)
    for name, rank, active in [
        ("blocks.0.conv1", 14.5, False),
        ("blocks.0.conv2", 73.7, False),
        ("blocks.2.conv1", 73.7, False),
        ("blocks.0.shortcut", 2.5, True),
        ("blocks.1.shortcut", 32.2, False),
    ]:
        assert found[name]["stable_rank_before"] == pytest.approx(rank, rel=0.1)
        assert found[name]["active"] == active or name == "blocks.0.shortcut"
    assert found["linear"]["target"] == 1.0
    assert not found["linear"]["active"]


def test_refusals() -> None:
    with pytest.raises(ValueError, match="k is -1"):
        stable_rank_norm(nn.Linear(3, 3), k=-1)
    with pytest.raises(ValueError, match=r"c is 1\.5"):
        stable_rank_norm(nn.Linear(3, 3), c=1.5)


def test_a_transposed_kernel_is_the_published_form_of_its_matrix_by_outputs() -> None:
    # the authors' code permutes the matrix and then reshapes it, which mixes up the kernel
    torch.manual_seed(0)
    layer: Any = stable_rank_norm(nn.ConvTranspose2d(4, 6, 3, bias=False).double(), c=0.4).eval()
    rows = raw(layer).detach().transpose(0, 1).flatten(1)
    left, _, right = torch.linalg.svd(rows, full_matrices=False)
    with torch.no_grad():
        constraint(layer).u.copy_(left[:, 0])
        constraint(layer).v.copy_(right[0])
    expected = published(rows, left[:, 0], right[0], constraint(layer).target)
    torch.testing.assert_close(layer.weight.transpose(0, 1).flatten(1).detach(), expected)
