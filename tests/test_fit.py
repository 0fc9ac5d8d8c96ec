"""The training loop of small nets: Adam on a loss per step, with its rate, its checks and its place to start."""

from __future__ import annotations

import pytest
import torch

from orthogan.fit import LossNotFinite, cosine, fit, seeded


def test_it_is_adam_on_the_loss_of_each_step_from_the_start_given() -> None:
    x, y = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    seen: list[tuple[int, float]] = []
    ours = torch.optim.Adam([x], lr=1.0)
    fit(
        ours,
        lambda step: ((x - step) ** 2).sum(),
        6,
        what="x",
        rate=lambda step: 0.1 * step,
        after=lambda step: seen.append((step, ours.param_groups[0]["lr"])),
        start=2,
        progress=False,
    )
    theirs = torch.optim.Adam([y], lr=1.0)
    for step in range(2, 6):
        theirs.param_groups[0]["lr"] = 0.1 * step
        theirs.zero_grad()
        ((y - step) ** 2).sum().backward()
        theirs.step()
    assert torch.equal(x, y)
    assert seen == [(step, 0.1 * step) for step in range(2, 6)]


def test_only_the_parameters_of_the_optimizer_get_gradients() -> None:
    x, other = torch.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    with torch.no_grad():
        fit(torch.optim.Adam([x]), lambda step: (x * other).sum(), 1, what="x", progress=False)
    assert other.grad is None
    assert x.grad is not None


@pytest.mark.parametrize(("check_every", "step"), [(None, 9), (4, 4)])
def test_a_loss_that_is_not_finite_is_named_at_the_next_check(check_every: int | None, step: int) -> None:
    x = torch.ones(1, requires_grad=True)
    with pytest.raises(LossNotFinite, match=f"toy: the loss became nan by step {step}; choose a lower lr"):
        fit(
            torch.optim.Adam([x]),
            lambda at: x.sum() * torch.nan,
            9,
            what="toy",
            check_every=check_every,
            progress=False,
        )


def test_the_cosine_rises_to_the_rate_and_falls_to_zero() -> None:
    rate = cosine(0.5, 100, warm=10)
    assert [rate(0), rate(9), rate(10), rate(55)] == pytest.approx([0.05, 0.5, 0.5, 0.25])
    assert rate(99) < 1e-3 * 0.5 * 2


def test_seeded_draws_depend_on_the_arguments_and_leave_the_random_state_alone() -> None:
    before = torch.random.get_rng_state()
    draws = []
    for parts in (("a",), ("a",), ("b",)):
        with seeded(3, *parts):
            draws.append(torch.rand(2))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.random.get_rng_state(), before)
