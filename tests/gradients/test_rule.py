"""What all rules share: optimizers that ascend, closures, shared parameters, groups, sparse and complex gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orthogan import weights
from orthogan.gradients import CayleyRetraction, GradientRule, NearestOrthogonalGradient, OptimalLearningRate
from orthogan.linalg import nearest_orthogonal, optimal_learning_rate

Make = Callable[..., GradientRule]
RULES: dict[str, Make] = {
    "nearest orthogonal": NearestOrthogonalGradient,
    "nearest orthogonal, scaled": lambda *a, **k: NearestOrthogonalGradient(*a, scale="frobenius", **k),
    "nearest orthogonal, momentum": lambda *a, **k: NearestOrthogonalGradient(*a, momentum=0.9, **k),
    "nearest orthogonal, nesterov": lambda *a, **k: NearestOrthogonalGradient(*a, momentum=0.9, nesterov=True, **k),
    "optimal learning rate": OptimalLearningRate,
    "optimal learning rate, matrix": lambda *a, **k: OptimalLearningRate(*a, form="matrix", **k),
    "Cayley retraction": lambda *a, **k: CayleyRetraction(*a, **k),
    "Cayley retraction, own rate": lambda *a, **k: CayleyRetraction(*a, lr=0.02, **k),
}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda p, **k: torch.optim.SGD(p, lr=0.05, weight_decay=0.01, **k),
    "sgd, momentum, foreach": lambda p, **k: torch.optim.SGD(p, lr=0.05, momentum=0.9, foreach=True, **k),
    "sgd, fused": lambda p, **k: torch.optim.SGD(p, lr=0.05, fused=True, **k),
    "adam": lambda p, **k: torch.optim.Adam(p, lr=0.05, **k),
    "adamw, tensor rate": lambda p, **k: torch.optim.AdamW(p, lr=torch.tensor(0.05), foreach=False, **k),
    "rmsprop": lambda p, **k: torch.optim.RMSprop(p, lr=0.01, weight_decay=0.1, **k),
}


def net_for(rule: str) -> nn.Sequential:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    if rule.startswith("Cayley"):
        weights.apply(net, "rotation", method="ogd", neurons="weight")
    return net


def trained(rule: str, optimizer: str, *, maximize: bool) -> list[Tensor]:
    net = net_for(rule)
    x, target = torch.randn(7, 6), torch.randn(7, 3)
    first, last = [list(net[i].parameters()) for i in (0, 2)]
    # one group ascends, the other descends the negative: what each makes must be the same
    made = OPTIMIZERS[optimizer]([{"params": first, "maximize": maximize}, {"params": last}])
    RULES[rule](made, net)
    for _ in range(4):
        made.zero_grad()
        loss = (net(x) * target).mean() + net(x).square().mean()
        (-loss).backward()
        if maximize:
            for parameter in first:
                assert parameter.grad is not None
                parameter.grad.neg_()
        made.step()
    return [parameter.detach() for parameter in net.parameters()]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", RULES)
def test_to_maximize_is_to_minimize_the_negative(rule: str, optimizer: str) -> None:
    for one, other in zip(
        trained(rule, optimizer, maximize=True), trained(rule, optimizer, maximize=False), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["argument", "keyword"])
@pytest.mark.parametrize("rule", RULES)
def test_a_closure_is_refused_before_anything_moves(rule: str, how: str) -> None:
    net = net_for(rule)
    before = [parameter.detach().clone() for parameter in net.parameters()]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    RULES[rule](optimizer, net)

    def closure() -> Tensor:
        raise AssertionError("it must not be called")

    with pytest.raises(ValueError, match=r"step\(closure\).*call the closure yourself"):
        optimizer.step(closure) if how == "argument" else optimizer.step(closure=closure)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    net(torch.randn(2, 6)).sum().backward()
    optimizer.step()
    optimizer.step(closure=None)


class NeedsClosure(torch.optim.SGD):
    def step(self, closure: Any) -> Any:
        return super().step(closure)


@pytest.mark.parametrize("rule", RULES)
def test_optimizers_that_a_rule_cannot_serve_are_refused_when_it_is_made(rule: str) -> None:
    net = net_for(rule)
    for optimizer in (torch.optim.LBFGS(net.parameters()), NeedsClosure(net.parameters(), lr=0.1)):
        with pytest.raises(ValueError, match="in a closure inside the step"):
            RULES[rule](optimizer, net)
    with pytest.raises(ValueError, match="differentiable=True"):
        RULES[rule](torch.optim.Adam(net.parameters(), differentiable=True), net)


@pytest.mark.parametrize("rule", [name for name in RULES if not name.startswith("Cayley")])
def test_a_parameter_in_two_layers_is_acted_on_once(rule: str) -> None:
    torch.manual_seed(0)
    net = nn.ModuleDict({"embedding": nn.Embedding(8, 4), "out": nn.Linear(4, 8, bias=False)})
    net["out"].weight = net["embedding"].weight
    alone = nn.Parameter(net["out"].weight.detach().clone())
    optimizers = [torch.optim.SGD(p, lr=0.1) for p in (net.parameters(), [alone])]
    made = RULES[rule](optimizers[0], net)
    RULES[rule](optimizers[1], [("embedding", alone)])
    assert [name for name, _ in made.parameters] == ["embedding"]
    for _ in range(2):
        gradient = torch.randn(8, 4)
        net["out"].weight.grad, alone.grad = gradient.clone(), gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(net["out"].weight, alone)


@pytest.mark.parametrize("rule", [name for name in RULES if not name.startswith("Cayley")])
def test_a_sparse_gradient_gives_the_step_of_a_dense_one(rule: str) -> None:
    layers = []
    for sparse in (True, False):
        torch.manual_seed(0)
        layer = nn.Embedding(10, 4, sparse=sparse)
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        RULES[rule](optimizer, layer)
        for rows in ([1, 2, 2, 5, 7, 9], [0, 3, 4, 5, 8, 8]):
            optimizer.zero_grad()
            layer(torch.tensor(rows)).square().sum().backward()
            optimizer.step()
            assert layer.weight.grad is not None
            assert layer.weight.grad.is_sparse == sparse
        layers.append(layer.weight.detach())
    torch.testing.assert_close(*layers)


LAYERS = {
    "conv": lambda: nn.Conv2d(6, 4, 3, groups=2),
    "depthwise": lambda: nn.Conv1d(4, 8, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    "dense": lambda: nn.Conv2d(3, 4, 3),
}


@pytest.mark.parametrize("norm", ["none", "spectral"])
@pytest.mark.parametrize("scale", ["none", "frobenius", "nuclear"])
@pytest.mark.parametrize("layer", LAYERS)
def test_a_kernel_with_groups_is_a_block_diagonal_matrix(layer: str, scale: Any, norm: str) -> None:
    torch.manual_seed(0)
    net: Any = nn.Sequential(LAYERS[layer]())
    weights.apply(net, norm)
    parameter = net[0].parametrizations.weight.original if norm == "spectral" else net[0].weight
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    NearestOrthogonalGradient(optimizer, net, scale=scale)
    parameter.grad = torch.randn_like(parameter)
    whole = torch.block_diag(*parameter.grad.flatten(1).chunk(net[0].groups))
    expected = nearest_orthogonal(whole)
    rank = torch.linalg.matrix_rank(whole)
    if scale == "frobenius":
        expected = expected * whole.norm() / rank.sqrt()
    if scale == "nuclear":
        expected = expected * torch.linalg.svdvals(whole).sum() / rank
    optimizer.step()
    found = torch.block_diag(*parameter.grad.flatten(1).chunk(net[0].groups))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["vector", "matrix"])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_optimal_rate_of_a_kernel_with_groups_is_that_of_its_matrix(layer: str, form: Any) -> None:
    torch.manual_seed(1)
    net: Any = LAYERS[layer]().double()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    rule = OptimalLearningRate(optimizer, net, form=form)
    net.weight.grad = torch.randn_like(net.weight)
    w, g = (torch.block_diag(*t.flatten(1).chunk(net.groups)) for t in (net.weight.detach(), net.weight.grad))
    # blocks with fewer columns than rows make the smaller side that of the columns
    expected = float(optimal_learning_rate(w, g, form))
    optimizer.step()
    assert rule.statistics()[""]["eta"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rule", [name for name in RULES if not name.startswith("Cayley")])
def test_complex_parameters_and_equal_names_are_refused(rule: str) -> None:
    layer = nn.Linear(3, 3, dtype=torch.complex64)
    with pytest.raises(ValueError, match="weight is complex"):
        RULES[rule](torch.optim.SGD(layer.parameters(), lr=0.1), [("weight", layer.weight)])
    pair = [nn.Parameter(torch.randn(3, 3)) for _ in range(2)]
    with pytest.raises(ValueError, match="two parameters have the same name"):
        RULES[rule](torch.optim.SGD(pair, lr=0.1), [("w", p) for p in pair])


def test_to_apply_twice_before_a_step_is_to_apply_once() -> None:
    layer = nn.Linear(4, 3, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    rule = NearestOrthogonalGradient(optimizer, layer, momentum=0.9)
    layer(torch.randn(5, 4)).square().sum().backward()
    before = layer.weight.detach().clone()
    rule.apply()
    rule.apply()
    optimizer.step()
    assert rule.steps == 1
    step = torch.linalg.svdvals((before - layer.weight.detach()) / 0.1)
    torch.testing.assert_close(step, torch.ones(3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("to_none", [True, False])
@pytest.mark.parametrize("momentum", [None, 0.0])
def test_apply_acts_on_new_gradients_after_a_step_that_was_skipped(momentum: float | None, to_none: bool) -> None:
    layer = nn.Linear(3, 3, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    rule = NearestOrthogonalGradient(optimizer, layer, momentum=momentum)
    for gradient in (torch.full((3, 3), torch.inf), torch.diag(torch.tensor([3.0, 2.0, 0.5]))):
        optimizer.zero_grad(to_none)
        if layer.weight.grad is None:
            layer.weight.grad = torch.zeros(3, 3)
        layer.weight.grad += gradient
        before = layer.weight.detach().clone()
        rule.apply()  # a GradScaler skips the step of the first gradient
    optimizer.step()
    torch.testing.assert_close(before - layer.weight.detach(), torch.eye(3))


@pytest.mark.parametrize("rule", ["nearest orthogonal, momentum", "nearest orthogonal, nesterov", "Cayley retraction"])
def test_a_step_that_a_fused_optimizer_skips_is_skipped(rule: str) -> None:
    """A GradScaler leaves the decision to a fused optimizer; nothing may move, nor the averages."""
    found = []
    for fused in (False, True):
        net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        for layer in net:
            nn.init.eye_(layer.weight)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1, fused=fused)
        RULES[rule](optimizer, list(net.named_parameters()))
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)  # pyright: ignore[reportPrivateImportUsage]
        target = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 1.0], [1.0, 0.0, 0.0]])
        for step in range(4):
            optimizer.zero_grad()
            scaler.scale((net(torch.eye(3)) - target).square().sum()).backward()
            before = [p.detach().clone() for p in net.parameters()]
            if step == 1:
                assert net[0].weight.grad is not None
                net[0].weight.grad[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
            moved = [not torch.equal(p, was) for p, was in zip(net.parameters(), before, strict=True)]
            assert moved == [step != 1] * 2, step
        found.append([p.detach() for p in net.parameters()])
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)])
def test_a_rate_under_a_warm_up_follows_its_schedule(rate: Any) -> None:
    found = []
    for warm in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 4, bias=False))
        weights.apply(net, "rotation", method="ogd")
        optimizer = torch.optim.SGD(net.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 4) if warm else None
        CayleyRetraction(optimizer, net, lr=0.02)
        for step in range(4):
            if schedule is None:  # by hand
                optimizer.param_groups[0]["lr"] = 0.1 * step / 4
            optimizer.zero_grad()
            net(torch.ones(3, 5)).square().sum().backward()
            optimizer.step()
            if schedule is not None:
                schedule.step()
        found.append(net[0].weight.detach())
    assert bool(torch.isfinite(found[0]).all())
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("group_rate", "lr", "message"),
    [(0.0, 0.02, "initial rate is 0.0"), (0.1, 0.0, "lr is 0.0"), (0.1, float("nan"), "lr is nan")],
)
def test_rates_that_cannot_be_followed_are_refused(group_rate: float, lr: float, message: str) -> None:
    net = nn.Linear(5, 4)
    weights.rotation(net, method="ogd")
    with pytest.raises(ValueError, match=message):
        CayleyRetraction(torch.optim.SGD(net.parameters(), lr=group_rate), net, lr=lr)


@pytest.mark.parametrize("rule", [name for name in RULES if not name.startswith("Cayley")])
def test_groups_may_come_and_change_after_the_rule(rule: str) -> None:
    found = []
    for late in (True, False):
        torch.manual_seed(0)
        net = nn.ModuleDict({"a": nn.Linear(4, 3, bias=False), "b": nn.Linear(4, 3, bias=False)})
        optimizer = torch.optim.SGD([{"params": net["a"].parameters(), "lr": 0.1, "maximize": not late}])
        if not late:
            optimizer.add_param_group({"params": net["b"].parameters(), "lr": 0.5})
        RULES[rule](optimizer, net, layers="a")
        if late:
            optimizer.add_param_group({"params": net["b"].parameters(), "lr": 0.5})
            optimizer.param_groups[0]["maximize"] = True
        for _ in range(2):
            optimizer.zero_grad()
            x = torch.ones(2, 4)
            (net["a"](x).square().sum() + net["b"](x).square().sum()).backward()
            optimizer.step()
        found.append([net[key].weight.detach() for key in "ab"])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_parameter_that_left_the_optimizer_is_named() -> None:
    layer = nn.Linear(4, 3, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    OptimalLearningRate(optimizer, [("weight", layer.weight)])
    layer(torch.ones(2, 4)).sum().backward()
    optimizer.param_groups[0]["params"] = []
    with pytest.raises(ValueError, match="weight is no longer in a group of the optimizer"):
        optimizer.step()


@pytest.mark.parametrize("wrong", [None, "sgd", nn.Linear(2, 2)], ids=lambda w: type(w).__name__)
def test_the_optimizer_comes_first(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"must be a torch.optim.Optimizer, not {type(wrong).__name__}; the network is"):
        NearestOrthogonalGradient(wrong, nn.Linear(2, 2))
