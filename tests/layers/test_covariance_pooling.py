"""Covariance pooling against scipy's matrix root, at any rank."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan.layers import CovariancePooling

METHODS = ["pade", "taylor", "newton_schulz", "eigh", "eigh_autograd"]


def pooled(x: Tensor) -> Tensor:
    """By numpy and scipy in float64, an image after the other."""
    rows = []
    for image in x.detach().double().flatten(2).numpy():
        c = len(image)
        root = np.real(scipy.linalg.sqrtm(np.cov(image, bias=True).reshape(c, c)))
        rows.append([root[i, j] for i in range(c) for j in range(i, c)])
    return torch.tensor(rows, dtype=torch.float64)


@given(st.integers(1, 3), st.integers(1, 5), st.integers(3, 5), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_is_the_upper_triangle_of_the_root_of_the_covariance(n: int, c: int, side: int, seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(n, c, side, side, dtype=torch.float64)
    for method in METHODS:
        got = CovariancePooling(method, iterations=20)(x)
        assert got.shape == (n, c * (c + 1) // 2)
        torch.testing.assert_close(got, pooled(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_gradients(method: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    x = (x * torch.tensor([0.5, 1, 2]).view(1, 3, 1, 1)).requires_grad_(True)  # separate eigenvalues
    layer = CovariancePooling(method)
    assert torch.autograd.gradcheck(layer, (x,), atol=1e-5)
    if method in ("eigh", "newton_schulz"):
        assert torch.autograd.gradgradcheck(layer, (x,), atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["fewer positions", "one position", "constant", "zero", "one channel", "repeated"])
def test_any_rank_gives_finite_values_and_gradients(method: str, kind: str) -> None:
    torch.manual_seed(0)
    x = {
        "fewer positions": torch.randn(2, 64, 3, 3),
        "one position": torch.randn(2, 5, 1, 1),
        "constant": torch.full((2, 5, 4, 4), 0.3),
        "zero": torch.zeros(2, 5, 4, 4),
        "one channel": torch.randn(2, 1, 4, 4),
        "repeated": torch.randn(2, 1, 4, 4).expand(2, 6, 4, 4).clone(),
    }[kind].requires_grad_(True)
    out = CovariancePooling(method)(x)
    (out * torch.randn(out.shape)).sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(x.grad).all()
    # a null direction's slope is cut where rounding begins: the gradient stays of the size of the others
    assert float(x.grad.abs().max()) < 1e3


@pytest.mark.parametrize("method", ["eigh", "pade", "taylor"])
def test_fewer_positions_than_channels_in_float32_is_near_float64(method: str) -> None:
    torch.manual_seed(0)
    x, grads = torch.randn(2, 32, 3, 3), []
    probe = torch.randn(2, 32 * 33 // 2)
    for dtype in (torch.float32, torch.float64):
        y = x.to(dtype, copy=True).requires_grad_(True)
        (CovariancePooling(method)(y) * probe).sum().backward()
        grads.append(y.grad.float())
    torch.testing.assert_close(*grads, rtol=0, atol=0.02 * float(grads[1].abs().max()))


def test_a_reduction_comes_first() -> None:
    torch.manual_seed(0)
    layer = CovariancePooling("eigh", dimension=4, in_channels=10)
    x = torch.randn(3, 10, 5, 5)
    out = layer(x)
    convolution = layer.reduction[0]
    features = nn.functional.conv2d(x, convolution.weight)
    features = nn.functional.batch_norm(features, None, None, training=True, eps=2e-5).relu()
    torch.testing.assert_close(out.double(), pooled(features), rtol=1e-3, atol=1e-4)
    out.sum().backward()
    assert float(convolution.weight.grad.norm()) > 0
    twin = CovariancePooling("eigh", dimension=4, in_channels=10)
    twin.load_state_dict(layer.state_dict())
    torch.testing.assert_close(twin.eval()(x), layer.eval()(x))
    torch.testing.assert_close(copy.deepcopy(layer)(x), layer(x))
    assert CovariancePooling().state_dict() == {}


@pytest.mark.parametrize("method", METHODS)
def test_two_forwards_before_a_backward_in_one_graph(method: str) -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    eager = CovariancePooling(method, dimension=3, in_channels=4)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 2, 4, 3, 3)
    grads = []
    for layer, call in ((eager, eager), (twin, compiled)):
        one, two = call(x[0]), call(x[1])
        (one.square().sum() + two.pow(3).sum()).backward()
        grads.append([p.grad for p in layer.parameters()])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


def test_half_precision_input_is_decomposed_in_float32() -> None:
    x = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    layer = CovariancePooling()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, pooled(x).bfloat16(), rtol=0.01, atol=1e-3)


def test_conditioning_tells_each_image() -> None:
    layer = CovariancePooling()
    with pytest.raises(ValueError, match="no batch yet"):
        layer.conditioning()
    full = torch.diag(torch.tensor([1.0, 2.0])).repeat(1, 2)
    full[:, 2:] *= -1  # covariance diag(0.5, 2)
    layer(torch.stack([full, torch.ones(2, 4)]).view(2, 2, 2, 2))
    assert layer.conditioning() == {"kappa": [pytest.approx(4), float("inf")], "lambda_max": [pytest.approx(2), 0.0]}


def test_refusals() -> None:
    with pytest.raises(ValueError, match="method 'svd'"):
        CovariancePooling("svd")
    with pytest.raises(ValueError, match="iterations is 0"):
        CovariancePooling("newton_schulz", iterations=0)
    for wrong in ({"dimension": 4}, {"in_channels": 4}):
        with pytest.raises(ValueError, match="set both for a reduction"):
            CovariancePooling(**wrong)
