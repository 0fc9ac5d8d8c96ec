"""Trainable stable rank normalisation that preserves no singular value, or more than one."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan import weights
from orthogan.linalg import stable_rank, stable_rank_projection
from orthogan.weights import stable_rank_norm
from orthogan.weights.stable_rank import StableRankNorm

KS = [0, 2, 4]


def layer_of(m: int, n: int, seed: int, c: float, k: int, settle: int = 0) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = nn.Linear(n, m, bias=False).double()
        stable_rank_norm(layer, c=c, k=k)
    for _ in range(settle):
        weights.advance(layer)
    return layer.eval()


def constraint(layer: nn.Module) -> StableRankNorm:
    return layer.parametrizations.weight[0]


def raw(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


@pytest.mark.parametrize("k", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("c", [0.15, 0.3, 0.6])
def test_settled_vectors_give_the_closed_form(k: int, c: float) -> None:
    layer = layer_of(7, 11, 0, c, k, settle=400)
    w = raw(layer).detach()
    expected = stable_rank_projection(w / torch.linalg.svdvals(w)[0], constraint(layer).target, k)
    torch.testing.assert_close(layer.weight.detach(), expected, atol=1e-7, rtol=1e-6)


@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 10**6), st.floats(0.05, 0.6), st.integers(2, 5))
@settings(max_examples=50, deadline=None)
def test_active_pins_the_frobenius_norm_while_the_vectors_are_on_their_way(
    m: int, n: int, seed: int, c: float, k: int
) -> None:
    layer = layer_of(m, n, seed, c, k)
    found = constraint(layer)
    if float(found.scale(raw(layer).detach())) < 1:
        assert float(layer.weight.detach().square().sum()) == pytest.approx(found.target, rel=1e-9)


@pytest.mark.parametrize("k", KS)
def test_training_follows_the_weight(k: int) -> None:
    torch.manual_seed(0)
    layer = stable_rank_norm(nn.Linear(12, 8), c=0.3, k=k)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
    x = torch.randn(16, 12)
    for _ in range(60):
        optimizer.zero_grad()
        (layer(x) - x[:, :8]).square().mean().backward()
        optimizer.step()
    layer.eval()
    assert float(stable_rank(layer.weight.detach())) == pytest.approx(0.3 * 8, rel=0.02)
    top = float(torch.linalg.svdvals(layer.weight.detach())[0])
    assert top > 1.05 if k == 0 else top == pytest.approx(1.0, rel=0.01)


def test_k_beyond_the_room_is_clipped_to_what_is_feasible() -> None:
    layer = nn.Linear(6, 6, bias=False).double()
    layer.weight.data = torch.diag(torch.tensor([4.0, 3.9, 3.8, 1, 1, 1], dtype=torch.float64))
    stable_rank_norm(layer, c=2.5 / 6, k=5)
    for _ in range(500):
        weights.advance(layer)
    values = torch.linalg.svdvals(layer.eval().weight.detach())
    assert float(values[1]) == pytest.approx(3.9 / 4, rel=1e-5)  # two fit into 2.5, a third does not
    assert float(values[2]) < 0.9 * 3.8 / 4
    assert float(values.square().sum()) == pytest.approx(2.5, rel=1e-9)


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("c", [0.25, 1.0])
def test_gradients_of_both_orders(k: int, c: float) -> None:
    layer = layer_of(4, 5, 4, c, k, settle=50)
    weight = raw(layer).detach().clone().requires_grad_(True)
    assert torch.autograd.gradcheck(constraint(layer), (weight,))
    assert torch.autograd.gradgradcheck(constraint(layer), (weight,))


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("layer", [nn.Linear(8, 1), nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(2, 3, 2)], ids=str)
def test_small_layers_and_zero_weights_are_handled(layer: nn.Module, k: int) -> None:
    for scale in (1.0, 0.0):
        twin = copy.deepcopy(layer)
        twin.weight.data.mul_(scale)
        stable_rank_norm(twin, c=0.05, k=k)
        twin.weight.square().sum().backward()
        assert torch.isfinite(raw(twin).grad).all()
        assert torch.isfinite(twin.weight).all()


@pytest.mark.parametrize("k", KS)
def test_compiles_copies_and_round_trips(k: int) -> None:
    torch.manual_seed(0)
    eager = stable_rank_norm(nn.Conv2d(2, 6, 3), c=0.3, k=k)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 2, 6, 6)
    for _ in range(3):
        torch.testing.assert_close(compiled(x), eager(x))
    fresh = stable_rank_norm(nn.Conv2d(2, 6, 3), c=0.3, k=k)
    fresh.load_state_dict(eager.state_dict())
    assert torch.equal(fresh.eval()(x), eager.eval()(x))


@pytest.mark.parametrize("k", KS)
def test_two_forwards_before_a_backward(k: int) -> None:
    torch.manual_seed(0)
    layer = stable_rank_norm(nn.Linear(5, 4), c=0.3, k=k)
    (layer(torch.randn(3, 5)).sum() + layer(torch.randn(3, 5)).square().sum()).backward()
    assert torch.isfinite(raw(layer).grad).all()


@pytest.mark.parametrize("k", KS)
def test_half_precision_weights_are_computed_in_float32(k: int) -> None:
    torch.manual_seed(0)
    layer = stable_rank_norm(nn.Linear(16, 12).bfloat16(), c=0.3, k=k)
    assert layer.weight.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        weight = layer.weight
    assert float(weight.detach().square().sum()) > 0
    assert weight.dtype == torch.bfloat16
