"""The optimal learning rate: its formula against brute force, its switch, and the step it makes of any optimiser's."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan.gradients import NearestOrthogonalGradient, OptimalLearningRate
from orthogan.linalg import optimal_learning_rate

shapes = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6))


def pair(m: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return (
        torch.randn(m, n, generator=rng, dtype=torch.float64),
        torch.randn(m, n, generator=rng, dtype=torch.float64),
    )


def newton(loss: object, eta: float = 0.0) -> float:
    """The minimum of the second-order expansion at 0, by automatic differentiation."""
    x = torch.tensor(eta, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(x), x, create_graph=True)
    (curve,) = torch.autograd.grad(slope, x)
    return float(-slope / curve) if float(curve) > 0 else float("inf")


@given(shapes)
@settings(max_examples=60, deadline=None)
def test_both_forms_minimise_their_objective_to_second_order(case: tuple[int, int, int]) -> None:
    w, g = pair(*case)
    vector = newton(lambda eta: ((w - eta * g).square().sum()).square())
    assert float(optimal_learning_rate(w, g)) == pytest.approx(vector, rel=1e-8)

    def residual(eta: Tensor) -> Tensor:
        step = w - eta * g
        gram = step @ step.T if len(w) <= w.shape[1] else step.T @ step
        return (gram - torch.eye(len(gram))).square().sum()

    assert float(optimal_learning_rate(w, g, "matrix")) == pytest.approx(newton(residual), rel=1e-8, abs=1e-12)


@given(shapes)
@settings(max_examples=60, deadline=None)
def test_the_published_form_shrinks_the_weight_or_is_negative(case: tuple[int, int, int]) -> None:
    w, g = pair(*case)
    eta = float(optimal_learning_rate(w, g))
    cosine = float((w * g).sum() / w.norm() / g.norm())
    assert (eta > 0) == (cosine > 0)
    expected = float(w.norm() / g.norm()) * cosine / (1 + 2 * cosine**2)
    assert eta == pytest.approx(expected, rel=1e-9)
    assert eta <= float(w.norm() / g.norm()) / (2 * 2**0.5) * (1 + 1e-9)


def test_the_matrix_form_has_nothing_to_do_at_an_orthogonal_weight() -> None:
    q = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0][:3]
    g = torch.randn(3, 5, dtype=torch.float64)
    assert abs(float(optimal_learning_rate(q, g, "matrix"))) < 1e-12
    assert float(optimal_learning_rate(1.3 * q, q, "matrix")) > 0.1


def test_without_a_gradient_or_a_weight_no_finite_step_is_best() -> None:
    z, w = torch.zeros(2, 3), torch.ones(2, 3)
    for form in ("vector", "matrix"):
        for a, b in ((w, z), (z, w), (z, z)):
            assert float(optimal_learning_rate(a, b, form)) == math.inf


MAKERS = {
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.1),
}


@pytest.mark.parametrize("make", MAKERS)
def test_the_step_is_that_of_the_optimizer_with_eta_as_its_rate(make: str) -> None:
    """Oracle: one group a layer, its lr overwritten by hand before the step, as the authors do it."""
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    theirs = copy.deepcopy(ours)
    lr = 0.3 if make == "sgd" else 0.5
    one = MAKERS[make](ours.parameters(), lr)
    rule = OptimalLearningRate(one, ours, layers="first")
    two = MAKERS[make]([{"params": [theirs[0].weight]}, {"params": [theirs[0].bias, *theirs[1].parameters()]}], lr)
    used = []
    for step in range(12):
        x = torch.randn(7, 6, generator=torch.Generator().manual_seed(step))
        for model, optimizer in ((ours, one), (theirs, two)):
            optimizer.zero_grad()
            (0.1 * (model(x) - 0.2 * x[:, :4]).square().sum()).backward()
        w, g = theirs[0].weight.detach(), theirs[0].weight.grad
        eta = float(optimal_learning_rate(w, g))
        used.append(0 < eta < lr)
        two.param_groups[0]["lr"] = eta if used[-1] else lr
        one.step()
        two.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    assert any(used)
    assert rule.statistics()["0"]["used"] == pytest.approx(sum(used) / 12)
    assert rule.statistics()["0"]["eta"] == pytest.approx(eta, rel=1e-3)


def test_where_eta_is_not_used_the_step_is_bitwise_the_optimizer_s() -> None:
    torch.manual_seed(0)
    ours = nn.Linear(5, 3)
    theirs = copy.deepcopy(ours)
    one, two = torch.optim.Adam(ours.parameters(), lr=1e-9), torch.optim.Adam(theirs.parameters(), lr=1e-9)
    rule = OptimalLearningRate(one, ours)
    for model, optimizer in ((ours, one), (theirs, two)):
        model(torch.ones(2, 5)).square().sum().backward()
        optimizer.step()
    assert rule.statistics()[""]["used"] == 0
    assert torch.equal(ours.weight, theirs.weight)


def test_schedulers_see_their_own_rate_and_the_switch_follows_it() -> None:
    layer = nn.Linear(4, 4, bias=False)
    layer.weight.data = torch.eye(4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=8.0)
    rule = OptimalLearningRate(optimizer, layer)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
    rates, used = [], []
    for _ in range(4):
        layer.weight.data = torch.eye(4)
        layer.weight.grad = torch.eye(4)  # cos = 1: eta* = 1/3
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
        used.append(float(layer.weight.detach()[0, 0]))
    assert rates == pytest.approx([0.8, 0.08, 0.008, 0.0008])
    assert used == pytest.approx([2 / 3, 2 / 3, 1 - 0.08, 1 - 0.008])
    assert rule.statistics()[""]["used"] == 0.5
    assert rule.statistics()[""]["cosine"] == pytest.approx(1.0)
    assert len(optimizer.param_groups) == 1


def test_it_takes_the_gradient_that_an_earlier_rule_has_made() -> None:
    layer = nn.Linear(4, 3, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=10.0)
    NearestOrthogonalGradient(optimizer, layer)
    rule = OptimalLearningRate(optimizer, layer)
    w, g = layer.weight.detach().clone(), torch.randn(3, 4)
    layer.weight.grad = g.clone()
    optimizer.step()
    u, _, vt = torch.linalg.svd(g, full_matrices=False)
    assert rule.statistics()[""]["eta"] == pytest.approx(float(optimal_learning_rate(w, u @ vt)), rel=1e-3)


def test_statistics_travel_and_apply_before_clipping_counts_once() -> None:
    layer = nn.Linear(4, 3, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    rule = OptimalLearningRate(optimizer, layer)
    layer(torch.randn(2, 4)).square().sum().backward()
    rule.apply()
    nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
    optimizer.step()
    again = OptimalLearningRate(torch.optim.SGD(layer.parameters(), lr=0.1), layer)
    again.load_state_dict(rule.state_dict())
    assert again.statistics() == rule.statistics()
    assert float(rule.state_dict()[""][3]) == 1


def test_unknown_forms_are_refused() -> None:
    p = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="choose vector or matrix"):
        OptimalLearningRate(torch.optim.SGD([p], lr=0.1), [p], form="tensor")
    with pytest.raises(ValueError, match="choose vector or matrix"):
        optimal_learning_rate(p, p, "tensor")


OPTIMIZERS = {
    name: getattr(torch.optim, name)
    for name in (
        "SGD",
        "Adam",
        "AdamW",
        "NAdam",
        "RAdam",
        "RMSprop",
        "Adamax",
        "Adagrad",
        "Adadelta",
        "Adafactor",
        "Muon",
    )
    if hasattr(torch.optim, name)  # Muon came with torch 2.9
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_step_is_that_of_the_optimizer_with_the_optimal_rate(name: str) -> None:
    """Over several steps, whose state every optimizer must keep as if its rate were eta* all the time."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3))
    target = torch.randn(4, 3)
    optimizer = OPTIMIZERS[name]([weight], lr=0.5)
    rule = OptimalLearningRate(optimizer, [weight])
    for _ in range(4):
        other = nn.Parameter(weight.detach().clone())
        twin = OPTIMIZERS[name]([other], lr=0.5)
        twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        for parameter, one in ((weight, optimizer), (other, twin)):
            one.zero_grad()
            (5 * (parameter - 0.1 * target).square().sum()).backward()
        assert other.grad is not None
        eta = float(optimal_learning_rate(other.detach(), other.grad))
        if 0 < eta < 0.5:
            twin.param_groups[0]["lr"] = eta
        optimizer.step()
        twin.step()
        assert torch.allclose(weight, other, atol=1e-5)
    assert rule.statistics()["parameter 0"]["used"] > 0.2


@pytest.mark.parametrize("kind", [torch.optim.Rprop, torch.optim.ASGD])
def test_optimizers_whose_step_is_not_proportional_to_the_rate_are_refused(kind: type[torch.optim.Optimizer]) -> None:
    weight = nn.Parameter(torch.eye(3))
    optimizer = kind([weight], lr=0.1)
    with pytest.raises(ValueError, match=f"the step of {kind.__name__} is not proportional to its lr"):
        OptimalLearningRate(optimizer, [weight])
    NearestOrthogonalGradient(optimizer, [weight])  # nothing is left of the refused rule
    weight.sum().backward()
    optimizer.step()
