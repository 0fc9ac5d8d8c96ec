"""Orthonormal weights: whatever the optimiser does, from the nearest start, safe where torch's own is not."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from orthogan import weights
from orthogan.weights import Orthogonal, orthogonal
from orthogan.weights.orthogonal import bjorck

METHODS = ["qr", "householder", "cayley", "polar", "bjorck"]
LAYERS = [
    nn.Linear(8, 5),
    nn.Linear(5, 8),
    nn.Linear(6, 6),
    nn.Conv2d(3, 40, 3),
    nn.Conv2d(8, 6, 3),
    nn.ConvTranspose2d(4, 6, 3),
    nn.Linear(4, 1),
    nn.Linear(1, 4),
    nn.Embedding(7, 3),
]


def constraint(layer: nn.Module) -> Orthogonal:
    return layer.parametrizations.weight[0]


def raw(layer: nn.Module) -> nn.Parameter:
    return layer.parametrizations.weight.original


def matrix(layer: nn.Module) -> Tensor:
    return constraint(layer).view.to(layer.weight.detach())


def residual(layer: nn.Module) -> float:
    w = matrix(layer).double()
    gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
    return float((gram - torch.eye(len(gram))).abs().max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_training_starts_at_the_nearest_orthogonal_weight(layer: nn.Module, method: str) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(layer)
    nn.init.normal_(layer.weight)
    plain = copy.deepcopy(layer)
    layer = orthogonal(layer, method=method)
    u, _, vt = torch.linalg.svd(constraint(layer).view.to(plain.weight.detach()).double(), full_matrices=False)
    torch.testing.assert_close(matrix(layer).double(), u @ vt, atol=2e-6, rtol=0)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 10**6), st.sampled_from(METHODS[:4]))
@settings(max_examples=80, deadline=None)
def test_any_parameter_gives_an_orthonormal_weight(m: int, n: int, seed: int, method: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = orthogonal(nn.Linear(n, m).double(), method=method)
        raw(layer).data.normal_()
    assert residual(layer) < 1e-9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_does_no_harm(method: str, optimizer: str) -> None:
    torch.manual_seed(0)
    layer = orthogonal(nn.Linear(40, 20), method=method)
    make = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=5e-4),
        "adamw": lambda p: torch.optim.AdamW(p, lr=3e-3),
    }[optimizer]
    opt = make(layer.parameters())
    x = torch.randn(64, 40)
    y = torch.randn(64, 20)
    first = matrix(layer).clone()
    for _ in range(100):
        opt.zero_grad()
        (layer(x) - y).square().mean().backward()
        opt.step()
        assert residual(layer) < 2e-5
    assert float((matrix(layer) - first).norm()) > 0.1, "it did not learn"
    assert float(matrix(layer).norm()) == pytest.approx(20**0.5, rel=1e-4)


def test_torch_s_own_map_still_dies_of_weight_decay() -> None:
    # why ours exists: its signs are read as integers from the trained tensor. When torch mends it, think again.
    layer = parametrizations.orthogonal(nn.Linear(40, 20))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, weight_decay=5e-4)
    layer(torch.randn(4, 40)).sum().backward()
    optimizer.step()
    assert float(layer.weight.norm()) == 0.0


def test_torch_s_own_map_leaves_flattened_kernels_alone() -> None:
    conv = parametrizations.orthogonal(nn.Conv2d(8, 6, 3))
    flat = conv.weight.detach().flatten(1)
    assert float((flat @ flat.T - torch.eye(6)).norm()) > 1
    assert residual(orthogonal(nn.Conv2d(8, 6, 3))) < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_gain_scales_and_reports(method: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 8, 3))
    weights.apply(net, "orthogonal", method=method, gain=1 / 3)
    torch.testing.assert_close(torch.linalg.svdvals(matrix(net[0])), torch.full((8,), 1 / 3))
    found = weights.report(net)["0"]
    assert found["sigma_after"] == pytest.approx(1 / 3, rel=1e-5)
    assert found["stable_rank_after"] == pytest.approx(8, rel=1e-4)
    assert found["orthogonality_error"] < 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 3)])
def test_gradients_in_float64(method: str, shape: tuple[int, int]) -> None:
    torch.manual_seed(1)
    layer = orthogonal(nn.Linear(shape[1], shape[0]).double(), method=method).eval()
    parameter = (raw(layer).detach() + 0.1 * torch.randn_like(raw(layer))).requires_grad_()
    if method == "bjorck":  # sigma counts as a constant, so hold it at a bound that the iteration forgets
        probe = torch.randn(*shape, dtype=torch.float64)
        (got,) = torch.autograd.grad((constraint(layer)(parameter) * probe).sum(), parameter)
        twin = orthogonal(nn.Linear(shape[1], shape[0]).double(), method="polar")
        (want,) = torch.autograd.grad((constraint(twin)(parameter) * probe).sum(), parameter)
        torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-6)
    else:
        assert torch.autograd.gradcheck(constraint(layer), (parameter,))


def test_bjorck_converges_quadratically_to_the_polar_factor() -> None:
    torch.manual_seed(0)
    a = torch.randn(9, 5, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(a, full_matrices=False)
    errors = [float((bjorck(a, u[:, 0], i) - u @ vt).norm()) for i in range(4, 16)]
    assert errors[-1] < 1e-12
    late = [e for e in errors if 1e-7 < e < 1e-1]
    assert all(b < 3 * a * a for a, b in itertools.pairwise(late))


@pytest.mark.parametrize("method", ["qr", "polar", "bjorck"])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_the_scale_that_weight_decay_leaves_of_the_parameter_does_not_matter(method: str, scale: float) -> None:
    torch.manual_seed(0)
    layer = orthogonal(nn.Linear(6, 4), method=method)
    before = layer.weight.detach()
    raw(layer).data.mul_(scale)
    torch.testing.assert_close(layer.weight.detach(), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [0.0, 1e-20])
def test_a_weight_without_rank_starts_somewhere_orthonormal(method: str, scale: float) -> None:
    layer = nn.Linear(6, 4)
    layer.weight.data.fill_(scale)
    layer = orthogonal(layer, method=method)
    assert residual(layer) < 1e-5
    layer.weight.sum().backward()
    assert torch.isfinite(raw(layer).grad).all()


@pytest.mark.parametrize("method", METHODS)
def test_compiles_copies_round_trips_and_accepts_assignment(method: str) -> None:
    torch.manual_seed(0)
    torch.compiler.reset()
    eager = orthogonal(nn.Conv2d(2, 6, 3), method=method)
    raw(eager).data += 0.05 * torch.randn_like(raw(eager))
    twin = copy.deepcopy(eager)
    x = torch.randn(2, 2, 6, 6)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x), eager(x), atol=1e-5, rtol=1e-5)
    fresh = orthogonal(nn.Conv2d(2, 6, 3), method=method)
    fresh.load_state_dict(eager.state_dict())
    assert torch.equal(fresh.eval()(x), eager.eval()(x))
    target = eager.weight.detach().clone()
    fresh.weight = 2.5 * target
    torch.testing.assert_close(fresh.weight, target, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_two_forwards_half_precision_and_removal(method: str) -> None:
    torch.manual_seed(0)
    layer = orthogonal(nn.Linear(5, 4), method=method)
    (layer(torch.randn(3, 5)).sum() + layer(torch.randn(3, 5)).square().sum()).backward()
    assert torch.isfinite(raw(layer).grad).all()
    half = orthogonal(nn.Linear(16, 8).bfloat16(), method=method)
    with torch.autocast("cpu", torch.bfloat16):
        assert half.weight.dtype == torch.bfloat16  # worked out in float32, then rounded
    assert residual(half) < 0.05
    expected = layer.eval().weight.detach().clone()
    weights.remove(layer)
    assert torch.equal(layer.weight, expected)
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_refusals() -> None:
    with pytest.raises(ValueError, match="choose qr"):
        orthogonal(nn.Linear(3, 3), method="exp")
    with pytest.raises(ValueError, match="gain is 0"):
        orthogonal(nn.Linear(3, 3), gain=0)
