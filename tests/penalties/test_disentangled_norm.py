"""The disentangled norm: parts that do not disturb each other, frame bounds, and what relaxing frees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthogan.linalg.gram import coherence, correlations, welch_bound
from orthogan.penalties import disentangled_norm, free_correlations, soft_orthogonality


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def minimised(loss: Callable[[Tensor], Tensor], m: int, n: int) -> Tensor:
    weight = random(m, n).requires_grad_()
    optimizer = torch.optim.LBFGS([weight], max_iter=400, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(weight)
        value.backward()
        return value

    optimizer.step(closure)
    return weight.detach()


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_the_strict_form_is_the_sum_over_filters_and_pairs(m: int, n: int, seed: int) -> None:
    w = random(m, n, seed=seed)
    norms = sum((float(row.norm()) - 1) ** 2 for row in w)
    pairs = sum(float(w[i] @ w[j] / w[i].norm() / w[j].norm()) ** 2 for i in range(m) for j in range(i))
    assert float(disentangled_norm(w)) == pytest.approx(norms + pairs)
    weighted = disentangled_norm(w, norm_weight=0.3, correlation_weight=2.0)
    assert float(weighted) == pytest.approx(0.3 * norms + 2 * pairs)
    assert float(disentangled_norm(w, root=True)) == pytest.approx(norms**0.5 + pairs**0.5)
    squares = sum((float(row @ row) - 1) ** 2 for row in w)
    assert float(disentangled_norm(w, squared_norm=True, correlation_weight=0.0)) == pytest.approx(squares)


@given(st.integers(2, 8), st.integers(2, 6), st.integers(0, 10**6), st.booleans(), st.booleans())
@settings(max_examples=30, deadline=None)
def test_the_parts_do_not_disturb_each_other(m: int, n: int, seed: int, relaxed: bool, squared: bool) -> None:
    w = random(m, n, seed=seed).requires_grad_()
    units = torch.nn.functional.normalize(w.detach(), dim=1)
    norm = disentangled_norm(w, correlation_weight=0.0, relaxed=relaxed, squared_norm=squared)
    (radial,) = torch.autograd.grad(norm, w)
    torch.testing.assert_close((radial * units).sum(1, keepdim=True) * units, radial)
    (tangential,) = torch.autograd.grad(disentangled_norm(w, norm_weight=0.0, relaxed=relaxed), w)
    assert float((tangential * units).sum(1).abs().max()) < 1e-12 * max(1.0, float(tangential.norm()))
    lengths = random(m, 1, seed=seed + 1).exp()
    torch.testing.assert_close(disentangled_norm(lengths * w, norm_weight=0.0), disentangled_norm(w, norm_weight=0.0))


@pytest.mark.parametrize(("m", "n"), [(12, 5), (5, 12), (7, 7)])
def test_the_minimum_is_the_frame_bound_at_norm_one(m: int, n: int) -> None:
    w = minimised(disentangled_norm, m, n)
    bound = max(0.0, m * (m - n) / (2 * n))
    assert float(correlations(w).square().sum()) == pytest.approx(bound, abs=1e-6)
    torch.testing.assert_close(w.norm(dim=1), torch.ones(m, dtype=w.dtype), rtol=0, atol=1e-5)
    assert float(coherence(w)) >= welch_bound(m, n) - 1e-4


def test_the_frobenius_norm_pulls_the_filters_below_one_instead() -> None:
    m, n = 12, 5
    w = minimised(lambda w: soft_orthogonality(w, "rows"), m, n)
    assert float(soft_orthogonality(w, "rows")) == pytest.approx(m - n, rel=1e-6)
    assert float(w.square().sum(1).mean()) == pytest.approx(n / m, rel=1e-4)


@pytest.mark.parametrize("by", ["magnitude", "value"])
@pytest.mark.parametrize("free", [0, 1, 7, 15])
def test_the_largest_correlations_are_free(by: str, free: int) -> None:
    w = random(6, 3)
    sizes = sorted(correlations(w).tolist(), key=abs if by == "magnitude" else float)
    got = disentangled_norm(w, norm_weight=0.0, relaxed=True, free=free, by=by)
    assert float(got) == pytest.approx(sum(c * c for c in sizes[: 15 - free]))


def test_free_correlations_get_no_gradient() -> None:
    w = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.1, 0.0], [0.0, 0.1, 1.0]], dtype=torch.float64, requires_grad=True)
    disentangled_norm(w, norm_weight=0.0, relaxed=True, free=1).backward()
    assert w.grad is not None
    assert w.grad[0].abs().max() == 0  # its only other correlation is already 0
    assert w.grad[1:].abs().max() > 0


def test_relaxing_changes_only_layers_with_more_filters_than_dimensions() -> None:
    for shape in ((4, 4), (4, 1, 3, 3)):
        w = random(*shape)
        assert torch.equal(disentangled_norm(w, relaxed=True), disentangled_norm(w))
        assert float(disentangled_norm(w, relaxed=True, transition=2)) < float(disentangled_norm(w))
    w = random(8, 3)
    expected = disentangled_norm(w, relaxed=True, free=free_correlations(8, 3))
    assert torch.equal(disentangled_norm(w, relaxed=True), expected)
    assert torch.equal(disentangled_norm(w, relaxed=True, transition=50), expected)
    assert float(expected) < float(disentangled_norm(w))


@pytest.mark.parametrize(("shape", "share", "dimensions"), [((8, 20), 0.75, 6), ((20, 8), 0.5, 4), ((5, 9), 0.9, 5)])
def test_a_share_is_of_what_the_layer_could_hold(shape: tuple[int, int], share: float, dimensions: int) -> None:
    w = random(*shape)
    expected = disentangled_norm(w, relaxed=True, transition=dimensions)
    assert torch.equal(disentangled_norm(w, relaxed=True, transition=share), expected)
    free = free_correlations(shape[0], dimensions) if shape[0] > dimensions else 0
    assert torch.equal(expected, disentangled_norm(w, relaxed=True, free=free))


@pytest.mark.parametrize(("filters", "dimensions"), [(64, 27), (10, 9), (5, 1), (200, 150), (6, 6), (6, 9)])
def test_the_estimate_is_near_its_expectation(filters: int, dimensions: int) -> None:
    pairs = filters * (filters - 1) / 2
    expected = pairs * (1 - min(1.0, dimensions / filters) ** 2)
    got = free_correlations(filters, dimensions)
    assert got == free_correlations(filters, dimensions)
    assert got == pytest.approx(expected, abs=0.02 * pairs + 0.5)
    assert 0 <= got <= pairs


def test_trials_and_seed_are_what_they_say() -> None:
    draws = {free_correlations(30, 10, trials=1, seed=seed) for seed in range(20)}
    assert len(draws) > 5  # one draw scatters
    averages = [free_correlations(30, 10, trials=2000, seed=seed) for seed in range(5)]
    assert max(averages) - min(averages) <= 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"free": 2}, "need relaxed=True"),
        ({"transition": 2}, "need relaxed=True"),
        ({"relaxed": True, "free": 7}, "free is 7: 4 filters have 6"),
        ({"relaxed": True, "free": -1}, "free is -1"),
        ({"relaxed": True, "free": 1, "transition": 2}, "set only one of them"),
        ({"relaxed": True, "transition": 0}, "transition is 0: must be an integer number of dimensions"),
        ({"relaxed": True, "transition": 2.5}, "transition is 2.5: must be an integer number of dimensions"),
        ({"by": "size"}, "by is 'size': choose magnitude or value"),
    ],
)
def test_refusals(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        disentangled_norm(random(4, 3), **options)
    with pytest.raises(ValueError, match="trials = 0"):
        free_correlations(4, 2, trials=0)
