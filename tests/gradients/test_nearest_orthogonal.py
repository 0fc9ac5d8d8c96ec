"""The nearest orthogonal gradient under real optimisers: what it does to a step, and what it leaves alone."""

from __future__ import annotations

import copy

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan import weights
from orthogan.gradients import NearestOrthogonalGradient, OptimalLearningRate


def oracle(gradient: Tensor) -> Tensor:
    u, _, vt = torch.linalg.svd(gradient.double().flatten(1), full_matrices=False)
    return (u @ vt).view_as(gradient)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(24, 2))


def backward(model: nn.Module, seed: int = 0) -> None:
    rng = torch.Generator().manual_seed(seed)
    model(torch.randn(16, 3, 6, 6, generator=rng).to(next(model.parameters()).dtype)).square().mean().backward()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_the_chosen_gradients_become_their_polar_factor_and_no_other() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rule = NearestOrthogonalGradient(optimizer, model, layers="conv")
    assert [name for name, _ in rule.parameters] == ["0", "2"]
    backward(model)
    before, start = gradients(model), copy.deepcopy(model.state_dict())
    optimizer.step()
    for name, p in model.named_parameters():
        expected = oracle(before[name]) if name in ("0.weight", "2.weight") else before[name].double()
        torch.testing.assert_close((start[name] - p.detach()).double() / 0.1, expected, atol=2e-5, rtol=1e-4)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6), st.floats(1e-3, 1e3))
@settings(max_examples=50, deadline=None)
def test_the_gradient_s_scale_does_not_matter_without_a_scale(m: int, n: int, seed: int, size: float) -> None:
    p = nn.Parameter(torch.zeros(m, n, dtype=torch.float64))
    optimizer = torch.optim.SGD([p], lr=1.0)
    rule = NearestOrthogonalGradient(optimizer, [p])
    g = torch.randn(m, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p.grad = size * g
    rule.apply()
    torch.testing.assert_close(p.grad, oracle(g), atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", ["frobenius", "nuclear"])
def test_scales_keep_the_norm_or_the_mean_singular_value(scale: str) -> None:
    left, right = oracle(torch.randn(8, 3)), oracle(torch.randn(3, 10))
    values = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)
    p = nn.Parameter(torch.zeros(8, 10, dtype=torch.float64))
    rule = NearestOrthogonalGradient(torch.optim.SGD([p], lr=1.0), [p], scale=scale)
    p.grad = left.double() @ torch.diag(values) @ right.double()
    rule.apply()
    size = {"frobenius": float(values.norm()) / 3**0.5, "nuclear": 7 / 3}[scale]
    torch.testing.assert_close(torch.linalg.svdvals(p.grad)[:3], torch.full((3,), size, dtype=torch.float64))
    assert float(torch.linalg.svdvals(p.grad)[3]) < 1e-6, "null directions stay null"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_a_gradient_that_is_not_finite_is_left_alone(bad: float, momentum: float | None) -> None:
    a, b = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(3, 4))
    optimizer = torch.optim.SGD([a, b], lr=0.1)
    rule = NearestOrthogonalGradient(optimizer, [a, b], momentum=momentum)
    a.grad, b.grad = torch.ones(3, 4), torch.randn(3, 4)
    a.grad[0, 0] = bad
    rule.apply()
    if momentum is None:
        assert not torch.isfinite(a.grad).all()
        torch.testing.assert_close(b.grad, oracle(b.grad).float(), atol=1e-5, rtol=0)
    else:
        optimizer.step()
        assert torch.isfinite(b).all()
        a.grad = torch.randn(3, 4)
        optimizer.step()
        assert torch.isfinite(a).all(), "the average took it up"


def test_every_third_step() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    rule = NearestOrthogonalGradient(optimizer, model, layers="conv", every=3)
    changed = []
    for seed in range(7):
        optimizer.zero_grad()
        backward(model, seed)
        before = gradients(model)["0.weight"]
        optimizer.step()
        changed.append(not torch.equal(before, gradients(model)["0.weight"]))
    assert changed == [True, False, False, True, False, False, True]
    again = NearestOrthogonalGradient(torch.optim.SGD(model.parameters(), lr=0.0), model, layers="conv", every=3)
    again.load_state_dict(rule.state_dict())
    assert again.steps == 7


def test_apply_before_clipping_is_not_undone_by_the_step() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    rule = NearestOrthogonalGradient(optimizer, model, layers="first")
    for seed in range(2):  # the second round too: the mark is taken off after a step
        start = model[0].weight.detach().clone()
        optimizer.zero_grad()
        backward(model, seed)
        rule.apply()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        moved = torch.linalg.svdvals((start - model[0].weight.detach()).flatten(1))
        assert float(moved.max()) < 0.0101
        torch.testing.assert_close(moved, moved[:1].expand_as(moved), rtol=1e-3, atol=1e-6)


def test_it_is_muon_with_momentum() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(12, 8, bias=False), nn.Linear(12, 8, bias=False)
    theirs.load_state_dict(ours.state_dict())
    # torch's Newton-Schulz coefficients stop near 1; its cubic limit (1.5, -0.5, 0) run long is the polar factor
    muon = torch.optim.Muon(
        theirs.parameters(),
        lr=0.02,
        weight_decay=0.1,
        momentum=0.95,
        nesterov=True,
        ns_coefficients=(1.5, -0.5, 0.0),
        ns_steps=60,
    )
    sgd = torch.optim.SGD(ours.parameters(), lr=0.02, weight_decay=0.1)
    NearestOrthogonalGradient(sgd, ours, momentum=0.95, nesterov=True)
    for seed in range(5):
        x = torch.randn(32, 12, generator=torch.Generator().manual_seed(seed))
        for layer, optimizer in ((ours, sgd), (theirs, muon)):
            optimizer.zero_grad()
            (layer(x) - x[:, :8]).square().mean().backward()
            optimizer.step()
    moved = float((ours.weight - theirs.weight).norm())
    assert moved < 0.02 * 5 * 8**0.5 * 0.02, "Muon orthogonalises in bfloat16: they agree to its rounding"


def test_with_momentum_the_optimizer_passes_over_the_parameter() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    NearestOrthogonalGradient(optimizer, model, layers="first", momentum=0.9)
    start = model[0].weight.detach().clone()
    backward(model)
    before = gradients(model)["0.weight"]
    optimizer.step()
    assert model[0].weight not in optimizer.state
    assert "exp_avg" in optimizer.state[model[2].weight]
    assert torch.equal(model[0].weight.grad, before), "the gradient is given back"
    step = (start - model[0].weight.detach()).flatten(1) / 0.01
    torch.testing.assert_close(step, oracle(before).flatten(1).float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("make", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("momentum", [None, 0.9])
def test_resuming_is_exact(make: str, momentum: float | None) -> None:
    def start(model: nn.Module) -> tuple[torch.optim.Optimizer, NearestOrthogonalGradient, object]:
        optimizer = {
            "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
            "adam": lambda p: torch.optim.Adam(p, lr=0.01),
            "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
        }[make](model.parameters())
        every = 2 if momentum is None else 1
        rule = NearestOrthogonalGradient(optimizer, model, layers="conv", every=every, momentum=momentum)
        return optimizer, rule, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)

    def go(model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: object, steps: range) -> None:
        for seed in steps:
            optimizer.zero_grad()
            for part in range(2):  # accumulation
                backward(model, 10 * seed + part)
            optimizer.step()
            scheduler.step()

    whole = net()
    optimizer, _, scheduler = start(whole)
    go(whole, optimizer, scheduler, range(7))
    first = net()
    optimizer, rule, scheduler = start(first)
    go(first, optimizer, scheduler, range(3))
    second = net()
    second.load_state_dict(first.state_dict())
    optimizer2, rule2, scheduler2 = start(second)
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    rule2.load_state_dict(rule.state_dict())
    scheduler2.load_state_dict(scheduler.state_dict())
    go(second, optimizer2, scheduler2, range(3, 7))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["eigh", "svd", "newton_schulz", "polar_express"])
def test_every_method_serves_every_precision(dtype: torch.dtype, method: str) -> None:
    model = net().to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    NearestOrthogonalGradient(optimizer, model, layers="conv", method=method)
    backward(model)
    optimizer.step()
    values = torch.linalg.svdvals(model[2].weight.grad.flatten(1).float())
    assert float((values - 1).abs().max()) < (0.05 if method == "polar_express" or dtype == torch.bfloat16 else 1e-3)


def test_loss_scaling_of_fused_and_plain_optimizers() -> None:
    for fused in (False, True):
        model, plain = net(), net()
        one = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
        two = torch.optim.Adam(plain.parameters(), lr=0.01, fused=fused)
        NearestOrthogonalGradient(one, model, layers="conv")
        NearestOrthogonalGradient(two, plain, layers="conv")
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        x = torch.randn(8, 3, 6, 6)
        scaler.scale(model(x).square().mean()).backward()
        scaler.step(one)
        scaler.update()
        plain(x).square().mean().backward()
        two.step()
        for a, b in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_accelerate_s_optimizer_is_as_good() -> None:
    model = net()
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    NearestOrthogonalGradient(optimizer, model, layers="first")
    start = model[0].weight.detach().clone()
    accelerator.backward(model(torch.randn(4, 3, 6, 6)).square().mean())
    optimizer.step()
    torch.testing.assert_close(
        torch.linalg.svdvals((start - model[0].weight.detach()).flatten(1)), torch.full((6,), 0.1), rtol=1e-3, atol=0
    )


def test_the_parameter_behind_a_normalised_weight_is_meant() -> None:
    model = net()
    weights.apply(model, "spectral")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rule = NearestOrthogonalGradient(optimizer, model, layers="first")
    assert rule.parameters[0][1] is model[0].parametrizations.weight.original
    weights.remove(model)
    weights.apply(model, "rotation", "first")
    with pytest.raises(ValueError, match="not a weight matrix"):
        NearestOrthogonalGradient(torch.optim.SGD(model.parameters(), lr=0.1), model, layers="first")


def test_nothing_to_act_on_is_refused() -> None:
    # two of the released scripts act on an empty group in silence
    model = net()
    optimizer = torch.optim.SGD(model[:2].parameters(), lr=0.1)
    with pytest.raises(ValueError, match="no parameter"):
        NearestOrthogonalGradient(optimizer, [])
    with pytest.raises(ValueError, match="no parameter"):
        OptimalLearningRate(optimizer, (p for n, p in model.named_parameters() if n == "module.conv1.weight"))
    with pytest.raises(ValueError, match="matches nothing"):
        NearestOrthogonalGradient(optimizer, model, layers="module.conv1")
    with pytest.raises(ValueError, match="4 is not among the optimizer"):
        NearestOrthogonalGradient(optimizer, model, layers="last")
    with pytest.raises(ValueError, match="bias is a vector"):
        NearestOrthogonalGradient(optimizer, model[0].named_parameters())
    with pytest.raises(ValueError, match="twice"):
        NearestOrthogonalGradient(optimizer, [model[0].weight, model[0].weight])
    with pytest.raises(ValueError, match="pass the module"):
        NearestOrthogonalGradient(optimizer, [model[0].weight], layers="conv")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "max"}, "choose none"),
        ({"method": "qr"}, "choose eigh"),
        ({"every": 0}, "at least 1"),
        ({"momentum": 1.0}, "must be in"),
        ({"momentum": 0.9, "every": 2}, "takes every step"),
        ({"nesterov": True}, "needs momentum"),
        ({"rank_tolerance": 1.0}, "must be in"),
        ({"rank_tolerance": 0.1, "method": "newton_schulz"}, "only with method eigh or svd"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    p = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=message):
        NearestOrthogonalGradient(torch.optim.SGD([p], lr=0.1), [p], **options)


def test_rules_that_exclude_each_other_are_refused_and_removal_makes_room() -> None:
    p = nn.Parameter(torch.zeros(2, 2))
    optimizer = torch.optim.SGD([p], lr=0.1)
    first = NearestOrthogonalGradient(optimizer, [p], momentum=0.9)
    with pytest.raises(ValueError, match="takes the whole step"):
        OptimalLearningRate(optimizer, [p])
    first.remove()
    NearestOrthogonalGradient(optimizer, [p])
    with pytest.raises(ValueError, match="already"):
        NearestOrthogonalGradient(optimizer, [p])
    OptimalLearningRate(optimizer, [p])
