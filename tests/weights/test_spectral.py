"""Spectral normalisation: the paper's iteration, torch's fixed point, and the traps of both."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from orthogan import weights
from orthogan.weights import SpectralNorm, spectral_norm
from orthogan.weights.matrix import MatrixView


def constraint(module: nn.Module, name: str = "weight") -> SpectralNorm:
    return module.parametrizations[name][0]


def converge(module: nn.Module, rounds: int = 300) -> None:
    for _ in range(rounds):
        weights.advance(module)


def test_the_fixed_point_is_torchs() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 8, 3)
    ours, theirs = spectral_norm(copy.deepcopy(plain)), parametrizations.spectral_norm(copy.deepcopy(plain))
    for _ in range(300):
        weights.advance(ours)
        _ = theirs.weight
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(7, 5),
        nn.Linear(6, 1),
        nn.Embedding(10, 4),
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(4, 8, 3, groups=2),
        nn.Conv1d(4, 6, 5),
        nn.ConvTranspose2d(4, 6, 3),
        nn.ConvTranspose2d(4, 6, 3, groups=2),
    ],
    ids=str,
)
def test_the_largest_singular_value_becomes_one(layer: nn.Module) -> None:
    torch.manual_seed(0)
    layer.reset_parameters()  # the same singular values in each run
    spectral_norm(layer)
    converge(layer)
    layer.eval()
    found = constraint(layer).view.block_diagonal(layer.weight)
    assert float(torch.linalg.svdvals(found)[0]) == pytest.approx(1.0, rel=1e-4)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_the_matrix_view_goes_there_and_back(
    groups: int, inputs: int, outputs: int, kernel: int, transposed: bool, seed: int
) -> None:
    make = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = make(inputs * groups, outputs * groups, kernel, groups=groups)
    weight = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(seed))
    view = MatrixView(layer, weight)
    matrix = view.to(weight)
    assert matrix.shape == (outputs * groups, inputs * kernel**2)
    assert torch.equal(view.back(matrix), weight)


def test_a_transposed_kernel_has_a_row_for_each_output_channel() -> None:
    # scaling output channel 3 of the layer must scale row 3 of the matrix and nothing else
    layer = nn.ConvTranspose2d(4, 6, 3, groups=2)
    view = MatrixView(layer, layer.weight)
    x = torch.randn(1, 4, 5, 5)
    matrix = view.to(layer.weight.detach()).clone()
    before = torch.nn.functional.conv_transpose2d(x, layer.weight, groups=2)
    matrix[3] *= 2
    after = torch.nn.functional.conv_transpose2d(x, view.back(matrix), groups=2)
    torch.testing.assert_close(after[:, 3], 2 * before[:, 3])
    torch.testing.assert_close(after[:, [0, 1, 2, 4, 5]], before[:, [0, 1, 2, 4, 5]])


def test_one_iteration_a_training_forward_and_none_in_eval_or_frozen() -> None:
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(30, 20))
    buffers = constraint(layer)
    x = torch.randn(2, 30)
    expected_v = torch.nn.functional.normalize(buffers_weight(layer).T @ buffers.u, dim=0)
    expected_u = torch.nn.functional.normalize(buffers_weight(layer) @ expected_v, dim=0)
    layer(x)
    torch.testing.assert_close(buffers.u, expected_u)
    torch.testing.assert_close(buffers.v, expected_v)
    u = buffers.u.clone()
    with weights.hold_power_iteration(layer):
        with weights.hold_power_iteration(layer):
            layer(x)
        layer(x)
        weights.advance(layer)
    assert torch.equal(buffers.u, u)
    layer.eval()
    first, second = layer(x), layer(x)
    assert torch.equal(first, second)
    assert torch.equal(buffers.u, u)
    layer.train()
    layer(x)
    assert not torch.equal(buffers.u, u)


def buffers_weight(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original.detach()


def test_frozen_ends_with_an_exception_too() -> None:
    layer = spectral_norm(nn.Linear(4, 4))
    with pytest.raises(RuntimeError), weights.hold_power_iteration(layer):
        raise RuntimeError
    assert constraint(layer).held == 0


def test_registration_warms_up() -> None:
    # torch's old hook starts anywhere; an eval forward before any training forward could blow up (pytorch#51800)
    torch.manual_seed(0)
    layer = spectral_norm(nn.Linear(64, 64)).eval()
    assert float(torch.linalg.svdvals(layer.weight)[0]) < 1.1


def test_two_forwards_before_a_backward() -> None:
    layer = spectral_norm(nn.Linear(6, 4).double())
    x = torch.randn(3, 6, dtype=torch.float64)
    one = layer(x).sum()
    u, v = constraint(layer).u.clone(), constraint(layer).v.clone()
    two = layer(2 * x).square().sum()  # moves u and v on
    one.backward()
    w = buffers_weight(layer).clone().requires_grad_(True)
    (expected,) = torch.autograd.grad((x @ (w / (u @ w @ v)).T).sum(), w)
    torch.testing.assert_close(layer.parametrizations.weight.original.grad, expected)
    two.backward()


@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv2d(2, 3, 2), nn.Linear(4, 1)], ids=str)
def test_gradients_of_both_orders(layer: nn.Module) -> None:
    spectral_norm(layer.double()).eval()
    forward = constraint(layer)
    weight = buffers_weight(layer).clone().requires_grad_(True)
    assert torch.autograd.gradcheck(forward, (weight,))
    assert torch.autograd.gradgradcheck(forward, (weight,))


def test_float32_inside_autocast_and_for_bfloat16_weights() -> None:
    layer = spectral_norm(nn.Linear(16, 8))
    exact = copy.deepcopy(layer)
    wanted = exact.weight
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.weight.dtype == torch.float32
        torch.testing.assert_close(layer.eval().weight, wanted, rtol=1e-5, atol=1e-6)
        assert layer(torch.randn(2, 16)).dtype == torch.bfloat16
    half = spectral_norm(nn.Linear(16, 8, bias=False).bfloat16())
    assert half.weight.dtype == torch.bfloat16
    assert torch.isfinite(half.weight).all()
    assert spectral_norm(nn.Linear(3, 3).double()).weight.dtype == torch.float64


def test_state_dict_and_deepcopy() -> None:
    layer = spectral_norm(nn.Linear(5, 4))
    layer(torch.randn(1, 5))
    state = layer.state_dict()
    names = {"bias", "parametrizations.weight.original", "parametrizations.weight.0.u", "parametrizations.weight.0.v"}
    assert set(state) == names
    other = spectral_norm(nn.Linear(5, 4))
    other.load_state_dict(state)
    clone = copy.deepcopy(layer)
    for net in (other, clone):
        net.eval()
        assert torch.equal(net.weight, layer.eval().weight)


@pytest.mark.parametrize("weight", [torch.zeros(4, 6), torch.ones(4, 6), torch.eye(4)], ids=["zero", "rank1", "tied"])
def test_degenerate_weights_stay_finite(weight: Tensor) -> None:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    spectral_norm(layer)
    optimizer = torch.optim.Adam(layer.parameters(), 1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.randn(2, weight.shape[1])).sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in layer.parameters() if p.grad is not None)
        optimizer.step()
    assert float(layer.weight.abs().max()) <= 2.0


@pytest.mark.parametrize("training", [True, False])
def test_compiles_into_one_graph(training: bool) -> None:
    torch.manual_seed(0)
    eager = spectral_norm(nn.Conv2d(2, 4, 3)).train(training)
    twin = copy.deepcopy(eager)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 2, 6, 6)
    for _ in range(3):
        torch.testing.assert_close(compiled(x), eager(x))
    torch.testing.assert_close(constraint(twin).u, constraint(eager).u)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no weight 'gain'"):
        spectral_norm(nn.Linear(2, 2), "gain")
    with pytest.raises(ValueError, match="is a vector"):
        spectral_norm(nn.Linear(2, 2), "bias")
    layer = spectral_norm(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="already constrained"):
        spectral_norm(layer)
    with pytest.raises(ValueError, match="n_power_iterations"):
        spectral_norm(nn.Linear(2, 2), n_power_iterations=0)
