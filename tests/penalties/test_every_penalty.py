"""What every penalty must do, whatever it measures."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from orthogan import penalties
from orthogan.penalties import PENALTIES, disentangled_norm, srip

FORMS = {name: kind.function for name, kind in PENALTIES.items()}
FORMS["relaxed"] = partial(disentangled_norm, relaxed=True, transition=3)
# the gradient that holds v fixed is the derivative once v has converged
FORMS["srip"] = partial(srip, iterations=300)
QUICK = {**FORMS, "srip": srip}  # 300 iterations are a long graph
every = pytest.mark.parametrize("penalty", FORMS.values(), ids=FORMS.keys())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 0.6


@every
@pytest.mark.parametrize("shape", [(4, 3), (3, 2, 2, 2), (6, 1, 2, 2), (3, 2, 3)], ids=str)
def test_gradients_are_the_numerical_ones(penalty, shape: tuple[int, ...]) -> None:
    weight = random(*shape).requires_grad_()
    assert penalty(weight).shape == ()
    assert torch.autograd.gradcheck(penalty, (weight,))


@every
def test_all_precisions_give_the_float32_value_also_under_autocast(penalty) -> None:
    weight = random(6, 4, 3, 3).bfloat16()
    exact = penalty(weight.double())
    assert exact.dtype == torch.float64
    found = [penalty(weight), penalty(weight.float())]
    with torch.autocast("cpu", torch.bfloat16):
        found += [penalty(weight), penalty(weight.float())]
    for value in found:
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("penalty", QUICK.values(), ids=QUICK.keys())
def test_compiles_into_one_graph_with_its_gradient(penalty) -> None:
    torch._dynamo.reset()
    weight = random(5, 2, 2, 2).requires_grad_()
    expected = penalty(weight)
    got = torch.compile(penalty, backend="aot_eager", fullgraph=True)(weight)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, weight), torch.autograd.grad(expected, weight))


@every
@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(3, 2, 3, 3),
        torch.ones(4, 2, 3, 3),
        torch.ones(1, 3, 3, 3),
        torch.ones(5, 1),
        torch.eye(4),
        torch.eye(4)[:, :2],
        torch.ones(1, 1),
    ],
    ids=["zero", "rank-1", "one-row", "one-column", "orthogonal", "tall", "number"],
)
def test_degenerate_weights_have_finite_values_and_gradients(penalty, weight: Tensor) -> None:
    weight = weight.clone().requires_grad_()
    value = penalty(weight)
    value.backward()
    assert value.isfinite()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
    assert weight.grad.abs().max() < 1e6


@every
def test_calls_do_not_disturb_each_other_nor_draw_numbers(penalty) -> None:
    weight = random(5, 2, 2, 2).requires_grad_()
    state = torch.get_rng_state()
    first, second = penalty(weight), penalty(weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    (one,) = torch.autograd.grad(first, weight, retain_graph=True)
    (two,) = torch.autograd.grad(first + second, weight)
    torch.testing.assert_close(two, 2 * one)


@every
def test_descent_lowers_it(penalty) -> None:
    weight = random(6, 2, 2, 2, seed=3).requires_grad_()
    value = penalty(weight)
    (gradient,) = torch.autograd.grad(value, weight)
    assert float(gradient.norm()) > 0
    assert float(penalty(weight.detach() - 1e-4 * gradient / gradient.norm())) < float(value.detach())


@pytest.mark.parametrize("name", list(PENALTIES))
@pytest.mark.parametrize(
    "weight", [[[1.0, 2.0]], np.ones((3, 4)), None, torch.nn.Linear(4, 3)], ids=lambda w: type(w).__name__
)
def test_what_is_not_a_tensor_is_refused_by_type(name: str, weight: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(weight).__name__}[:;]"):
        getattr(penalties, name)(weight)
