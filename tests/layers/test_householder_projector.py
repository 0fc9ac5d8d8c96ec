"""The Householder projector against products of reflections written out, SVDs and finite differences."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from orthogan import weights
from orthogan.layers.householder_projector import HouseholderProjector

SIZES = [(7, 4, 3), (4, 7, 3), (5, 5, 2), (5, 5, 5), (6, 1, 1), (1, 6, 1), (1, 1, 1)]  # in, out, rank


def projector(inputs: int, outputs: int, rank: int, *, seed: int = 0) -> HouseholderProjector:
    """In float64, with a bias that is not zero."""
    torch.manual_seed(seed)
    layer = HouseholderProjector(inputs, outputs, rank).double()
    assert layer.bias is not None
    nn.init.normal_(layer.bias)
    return layer


def product(vectors: Tensor) -> Tensor:
    """H_1 H_2 ... (d, d), a reflection after the other."""
    d, k = vectors.shape
    found = torch.eye(d, dtype=vectors.dtype)
    for i in range(k):
        v = vectors[:, i].clone()
        v[:i], v[i] = 0, 1
        found = found @ (torch.eye(d, dtype=v.dtype) - 2 * torch.outer(v, v) / (v @ v))
    return found


sizes = st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.just(pair[1]), st.integers(1, min(pair)))
)


@given(sizes, st.integers(0, 10**6), st.floats(0, 100))
@settings(max_examples=50, deadline=None)
def test_the_weight_is_the_product_of_all_three_factors(case: tuple[int, int, int], seed: int, size: float) -> None:
    inputs, outputs, rank = case
    layer = projector(*case, seed=seed)
    for part in (layer.left, layer.right):
        nn.init.normal_(part, 0, size)
    diagonal = torch.zeros(outputs, inputs, dtype=torch.float64)
    diagonal[range(rank), range(rank)] = 1
    expected = product(layer.left.detach()) @ diagonal @ product(layer.right.detach()).T
    torch.testing.assert_close(layer.weight, expected, atol=1e-9, rtol=1e-9)
    x = torch.randn(3, inputs, dtype=torch.float64)
    assert layer.bias is not None
    torch.testing.assert_close(layer(x), x @ expected.T + layer.bias, atol=1e-9, rtol=1e-9)
    values = torch.linalg.svdvals(layer.weight.detach())
    wanted = torch.tensor([1.0] * rank + [0.0] * (len(values) - rank), dtype=torch.float64)
    torch.testing.assert_close(values, wanted, atol=1e-9, rtol=0)


@pytest.mark.parametrize(("inputs", "outputs", "rank"), SIZES)
def test_the_directions_and_no_others_change_the_output(inputs: int, outputs: int, rank: int) -> None:
    layer = projector(inputs, outputs, rank)
    directions = layer.directions().detach()
    assert directions.shape == (rank, inputs)
    x = torch.randn(1, inputs, dtype=torch.float64)
    step = 1e-3
    for direction in directions:
        slope = (layer(x + step * direction) - layer(x - step * direction)) / (2 * step)
        assert float(slope.detach().norm()) == pytest.approx(1.0, abs=1e-9)
    rest = torch.eye(inputs, dtype=torch.float64) - directions.T @ directions
    assert float(rest.trace()) == pytest.approx(inputs - rank, abs=1e-9)
    torch.testing.assert_close(layer(x + 5 * rest), layer(x).expand(inputs, -1), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("inputs", "outputs", "rank"), [(512, 512, 10), (512, 256, 10), (256, 512, 10), (512, 512, 512)]
)
@pytest.mark.parametrize("size", [0.05, 1.0, 30.0])
def test_the_frames_are_orthonormal_in_float32_at_the_papers_sizes(
    inputs: int, outputs: int, rank: int, size: float
) -> None:
    torch.manual_seed(0)
    layer = HouseholderProjector(inputs, outputs, rank)
    for part in (layer.left, layer.right):
        nn.init.normal_(part, 0, size)
    for frame in layer.frames():
        assert float((frame.T @ frame - torch.eye(rank)).norm().detach()) < 1e-5


@pytest.mark.parametrize(("inputs", "outputs", "rank"), SIZES)
def test_a_pretrained_weight_gives_its_top_directions(inputs: int, outputs: int, rank: int) -> None:
    torch.manual_seed(3)
    linear = nn.Linear(inputs, outputs).double().eval()
    layer = HouseholderProjector.from_linear(linear, rank)
    u, _, vt = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
    torch.testing.assert_close(layer.weight, u[:, :rank] @ vt[:rank])
    cosines = (layer.directions() * vt[:rank]).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines))
    assert layer.bias is not None
    assert torch.equal(layer.bias, linear.bias)
    assert layer.bias.data_ptr() != linear.bias.data_ptr()
    assert not layer.training
    # no other weight of that kind is nearer
    ours = float((layer.weight - linear.weight).norm().detach())
    for seed in range(50):
        other = copy.deepcopy(layer)
        torch.manual_seed(seed)
        for part in (other.left, other.right):
            part.data.add_(torch.randn_like(part), alpha=10 ** -(seed % 4))
        assert float((other.weight - linear.weight).norm().detach()) >= ours - 1e-9


@pytest.mark.parametrize("weight", [torch.zeros(4, 6), torch.ones(4, 6), -torch.eye(4, 6)], ids=["0", "1", "-eye"])
def test_a_pretrained_weight_without_full_rank_gives_orthonormal_directions_still(weight: Tensor) -> None:
    linear = nn.Linear(6, 4, bias=False)
    linear.weight.data.copy_(weight)
    layer = HouseholderProjector.from_linear(linear, 3)
    assert layer.bias is None
    values = torch.linalg.svdvals(layer.weight.detach())
    torch.testing.assert_close(values, torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-5, rtol=0)
    layer(torch.randn(2, 6)).square().sum().backward()
    assert layer.right.grad is not None
    assert torch.isfinite(layer.right.grad).all()


def test_other_singular_values_can_be_put_into_the_buffer() -> None:
    layer = projector(6, 4, 2)
    layer.scale.copy_(Tensor([3.0, 0.5]))
    values = torch.linalg.svdvals(layer.weight.detach())
    torch.testing.assert_close(values, Tensor([3.0, 0.5, 0, 0]).double(), atol=1e-12, rtol=0)
    moved = layer(layer.directions()) - layer.bias
    torch.testing.assert_close(moved.norm(dim=1), layer.scale)
    assert "scale" not in dict(layer.named_parameters())


def test_a_constrained_linear_gives_its_effective_weight_and_does_not_move() -> None:
    torch.manual_seed(0)
    linear = weights.stable_rank_norm(nn.Linear(6, 4), c=0.4)
    assert isinstance(linear, nn.Linear)
    before = {name: value.clone() for name, value in linear.state_dict().items()}
    layer = HouseholderProjector.from_linear(linear, 2)
    assert all(torch.equal(before[name], value) for name, value in linear.state_dict().items())
    u, _, vt = torch.linalg.svd(linear.eval().weight.detach())
    torch.testing.assert_close(layer.weight, u[:, :2] @ vt[:2], atol=1e-5, rtol=0)


def test_zero_vectors_are_reflections_along_axes() -> None:
    layer = HouseholderProjector(5, 3, 2, bias=False)
    for part in (layer.left, layer.right):
        part.data.zero_()
    torch.testing.assert_close(layer.weight.detach(), torch.diag(torch.tensor([1.0, 1.0, 0.0]))[:, [0, 1, 2, 2, 2]])
    layer(torch.randn(2, 5)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in layer.parameters())


def test_training_turns_the_directions_and_leaves_the_singular_values() -> None:
    layer = projector(6, 4, 2)
    start = layer.directions().detach()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    x, y = torch.randn(20, 6).double(), torch.randn(20, 4).double()
    for _ in range(20):
        optimizer.zero_grad()
        (layer(x) - y).square().sum().backward()
        optimizer.step()
    values = torch.linalg.svdvals(layer.weight.detach())
    torch.testing.assert_close(values, torch.tensor([1.0, 1, 0, 0]).double(), atol=1e-12, rtol=0)
    overlap = torch.linalg.svdvals(start @ layer.directions().detach().T)
    assert float(overlap[-1]) < 0.99
    assert torch.equal(layer.scale, torch.ones(2).double())


@pytest.mark.parametrize(("inputs", "outputs", "rank"), [(5, 3, 2), (3, 5, 3), (1, 4, 1)])
def test_the_gradients_are_those_of_finite_differences(inputs: int, outputs: int, rank: int) -> None:
    layer = projector(inputs, outputs, rank)
    names = [name for name, _ in layer.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    values = [p.detach().clone().requires_grad_(True) for p in layer.parameters()]
    assert torch.autograd.gradcheck(function, (torch.randn(2, inputs).double().requires_grad_(True), *values))


def test_half_precision_is_worked_on_in_float32() -> None:
    layer = projector(6, 4, 3).float()
    x = torch.randn(2, 5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, half = layer(x), layer(x.bfloat16())
        weight = layer.weight
    assert torch.equal(inside, layer(x))
    assert torch.equal(half, layer(x.bfloat16().float()).bfloat16())
    assert torch.equal(weight, layer.weight)
    low = copy.deepcopy(layer).bfloat16()
    assert low(x.bfloat16()).dtype == torch.bfloat16
    frame = low.frames()[1].detach()
    torch.testing.assert_close(frame.T @ frame, torch.eye(3), atol=1e-5, rtol=0)


def test_deepcopy_and_state_dict_carry_the_same_function() -> None:
    torch.manual_seed(0)
    layer = HouseholderProjector.from_linear(nn.Linear(6, 6), 6)  # needs its signs
    assert float(layer.signs.min()) < 0
    other, x = HouseholderProjector(6, 6, 6), torch.randn(2, 6)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    assert not torch.allclose(other(x), layer(x))
    other.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(layer)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(twin(x), layer(x))
    nn.init.normal_(twin.left)
    assert not torch.allclose(twin(x), layer(x))


def test_it_compiles_into_one_graph() -> None:
    eager = projector(6, 4, 3)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 6).double()
    torch.testing.assert_close(compiled(x), eager(x))
    compiled(x).pow(3).sum().backward()
    eager(x).pow(3).sum().backward()
    torch.testing.assert_close(twin.left.grad, eager.left.grad)
    torch.testing.assert_close(twin.right.grad, eager.right.grad)


def test_two_forwards_before_one_backward_add_their_gradients() -> None:
    layer, both = projector(6, 4, 3), projector(6, 4, 3)
    x = torch.randn(2, 6).double()
    (layer(x[:1]).pow(3).sum() + layer(x[1:]).pow(3).sum()).backward()
    both(x).pow(3).sum().backward()
    torch.testing.assert_close(layer.right.grad, both.right.grad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 3, 1), "in_features is 0"), ((3, 0, 1), "out_features is 0"), ((3, 4, 0), "rank is 0"), ((8, 4), "1 to 4")],
)
def test_sizes_that_cannot_be_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HouseholderProjector(*arguments)


def test_what_is_no_pretrained_linear_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="Conv2d"):
        HouseholderProjector.from_linear(nn.Conv2d(3, 3, 1), 2)
    linear = nn.Linear(4, 4)
    linear.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        HouseholderProjector.from_linear(linear, 2)
    with pytest.raises(ValueError, match="rank is 10"):
        HouseholderProjector.from_linear(nn.Linear(4, 4))
