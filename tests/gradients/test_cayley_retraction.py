"""Descent on the orthogonal group: it stays there at any rate, and goes downhill."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from orthogan import weights
from orthogan.gradients import CayleyRetraction, NearestOrthogonalGradient
from orthogan.gradients.cayley_retraction import cayley_step


def test_one_step_is_the_published_formula_solved_exactly() -> None:
    torch.manual_seed(0)
    r = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    g, m = torch.randn(5, 5, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)
    moment = 0.9 * m - g
    hat = moment @ r.T - 0.5 * r @ (r.T @ moment @ r.T)
    w = hat - hat.T
    alpha = min(0.1, 1 / (float(w.norm()) + 1e-8))
    y = r + alpha * w @ r
    for _ in range(60):  # the authors stop after two of these
        y = r + alpha / 2 * w @ (r + y)
    got, momentum = cayley_step(r, g, m, 0.1, 0.9)
    torch.testing.assert_close(got, y)
    torch.testing.assert_close(momentum, w @ r)


@pytest.mark.parametrize("lr", [0.02, 0.2, 5.0])
def test_it_does_not_drift_at_any_rate(lr: float) -> None:
    # two published inner steps leave 0.031 after 3,000 steps at 0.2 (reference A5)
    rng = torch.Generator().manual_seed(0)
    r, m = torch.eye(32), torch.zeros(32, 32)
    for _ in range(1000):
        r, m = cayley_step(r, torch.randn(32, 32, generator=rng), m, lr, 0.9)
    assert float((r @ r.T - torch.eye(32)).norm()) < 1e-5
    assert float((torch.linalg.svdvals(r.double()) - 1).abs().max()) < 1e-6


def procrustes(lr: float, steps: int, **options: object) -> tuple[float, float]:
    """Rotate fixed neurons towards a target that a rotation reaches; the loss before and after."""
    torch.manual_seed(0)
    layer = weights.rotation(nn.Linear(6, 8, bias=False), method="ogd")
    neurons = layer.parametrizations.weight[0].neurons
    a = torch.randn(6, 6)
    target = neurons @ torch.matrix_exp(0.3 * (a - a.T)).T
    optimizer = torch.optim.Adam(layer.parameters(), lr=lr)
    CayleyRetraction(optimizer, layer, **options)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (layer.weight - target).square().sum()
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
    return losses[0], losses[-1]


def test_it_descends_to_the_solution() -> None:
    first, last = procrustes(0.02, 300)
    assert last < 1e-6 * first


def test_its_own_rate_follows_the_schedule_of_the_group() -> None:
    layer = weights.rotation(nn.Linear(4, 4, bias=False), method="ogd")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    CayleyRetraction(optimizer, layer, lr=0.02, momentum=0.0)
    raw = layer.parametrizations.weight.original
    for factor in (1.0, 0.1):
        optimizer.param_groups[0]["lr"] = 0.5 * factor
        start = raw.detach().clone()
        raw.grad = 0.01 * torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
        expected, _ = cayley_step(start, raw.grad, torch.zeros(1, 4, 4), 0.02 * factor, 0.0)
        optimizer.step()
        torch.testing.assert_close(raw.detach(), expected)


def test_resuming_is_exact_and_the_optimizer_keeps_out() -> None:
    def start(layer: nn.Module) -> tuple[torch.optim.Optimizer, CayleyRetraction]:
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        return optimizer, CayleyRetraction(optimizer, layer)

    def go(layer: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for seed in steps:
            optimizer.zero_grad()
            layer(torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
            optimizer.step()

    torch.manual_seed(0)
    whole = weights.rotation(nn.Linear(6, 3), method="ogd", blocks=2)
    first = copy.deepcopy(whole)
    optimizer, _ = start(whole)
    go(whole, optimizer, range(6))
    assert whole.parametrizations.weight.original not in optimizer.state
    optimizer, rule = start(first)
    go(first, optimizer, range(3))
    second = copy.deepcopy(first)
    resumed, rule2 = start(second)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    rule2.load_state_dict(rule.state_dict())
    go(second, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    layer = weights.rotation(nn.Linear(3, 3, bias=False), method="ogd")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    CayleyRetraction(optimizer, layer)
    raw = layer.parametrizations.weight.original
    raw.grad = torch.full((1, 3, 3), float("nan"))
    optimizer.step()
    assert torch.equal(raw.detach(), torch.eye(3)[None])
    raw.grad = torch.randn(1, 3, 3)
    optimizer.step()
    assert torch.isfinite(raw).all()


def parameter(value: Tensor) -> tuple[torch.optim.Optimizer, nn.Parameter]:
    p = nn.Parameter(value)
    return torch.optim.SGD([p], lr=0.1), p


def test_refusals() -> None:
    optimizer, p = parameter(torch.randn(3, 3))
    with pytest.raises(ValueError, match="not an orthogonal matrix"):
        CayleyRetraction(optimizer, [p])
    optimizer, p = parameter(torch.eye(3, 4))
    with pytest.raises(ValueError, match="not an orthogonal matrix"):
        CayleyRetraction(optimizer, [p])
    layer = weights.rotation(nn.Linear(3, 3), method="qr")
    with pytest.raises(ValueError, match="method='ogd'"):
        CayleyRetraction(torch.optim.SGD(layer.parameters(), lr=0.1), layer)
    optimizer, p = parameter(torch.eye(3))
    with pytest.raises(ValueError, match="must be in"):
        CayleyRetraction(optimizer, [p], momentum=1.0)
    CayleyRetraction(optimizer, [p])
    with pytest.raises(ValueError, match="takes the whole step"):
        NearestOrthogonalGradient(optimizer, [p])
