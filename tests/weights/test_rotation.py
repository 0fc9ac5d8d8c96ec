"""Orthogonal over-parameterized training: what a rotation keeps, over long runs, in every variant."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from orthogan import weights
from orthogan.gradients import CayleyRetraction
from orthogan.linalg import hyperspherical_energy
from orthogan.weights import Rotation, rotation
from orthogan.weights.rotation import fewest_blocks, list_rotations

HARD = ["qr", "gram_schmidt", "householder", "polar", "polar_newton_schulz", "cayley", "matrix_exp", "ogd"]
METHODS = [*HARD, "relaxed"]


def constraint(layer: nn.Module) -> Rotation:
    return layer.parametrizations.weight[0]


def matrix(layer: nn.Module) -> Tensor:
    return constraint(layer).view.to(layer.weight.detach())


def train(net: nn.Module, steps: int, lr: float = 0.05) -> None:
    """Fit a random target; the rotations of ``ogd`` by their own rule."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    if any(c.method == "ogd" for _, c, _ in list_rotations(net)):
        CayleyRetraction(optimizer, net, lr=0.2)
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(32, 3, 6, 6, generator=rng)
    y = torch.randint(4, (32,), generator=rng)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()


def net_of(method: str, **options: object) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 4),
    )
    weights.apply(net, "rotation", "!last", method=method, **options)
    return net


@pytest.mark.parametrize("method", HARD)
def test_energy_angles_norms_and_singular_values_survive_a_long_run(method: str) -> None:
    net = net_of(method)
    layers = [net[0], net[3]]
    before = [constraint(layer).neurons.double().clone() for layer in layers]
    start = [matrix(layer).clone() for layer in layers]
    train(net, 400)
    for layer, w0, first in zip(layers, before, start, strict=True):
        w = matrix(layer).double()
        assert float((w - first).norm() / first.norm()) > 0.05, "it did not learn"
        torch.testing.assert_close(torch.linalg.svdvals(w), torch.linalg.svdvals(w0), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(w.norm(dim=1), w0.norm(dim=1), rtol=1e-6, atol=0)
        torch.testing.assert_close(
            functional.normalize(w, dim=1) @ functional.normalize(w, dim=1).T,
            functional.normalize(w0, dim=1) @ functional.normalize(w0, dim=1).T,
            rtol=0,
            atol=1e-6,
        )
        for s in (0, 1, 2):
            energies = [float(hyperspherical_energy(m, s=s)) for m in (w, w0)]
            assert energies[0] == pytest.approx(energies[1], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "layer",
    [nn.Linear(6, 9), nn.Conv2d(2, 5, 3), nn.ConvTranspose2d(4, 3, 2), nn.Linear(5, 1), nn.Linear(1, 3)],
    ids=str,
)
def test_training_starts_at_the_neurons_and_every_parameter_has_a_slope(layer: nn.Module, method: str) -> None:
    torch.manual_seed(1)
    kept = rotation(copy.deepcopy(layer), method=method, neurons="weight")
    torch.testing.assert_close(kept.weight, layer.weight, atol=1e-6, rtol=1e-5)
    drawn = rotation(copy.deepcopy(layer), method=method)
    assert not torch.allclose(drawn.weight, layer.weight)
    (drawn.weight * torch.randn_like(drawn.weight)).sum().backward()
    gradient = drawn.parametrizations.weight.original.grad
    assert torch.isfinite(gradient).all()
    assert constraint(drawn).view.columns == 1 or float(gradient.norm()) > 0


def test_gaussian_neurons_have_the_variance_of_he() -> None:
    torch.manual_seed(0)
    layer = rotation(nn.Conv2d(32, 200, 3))
    assert float(constraint(layer).neurons.std()) == pytest.approx((2 / 288) ** 0.5, rel=0.01)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 10**6), st.sampled_from(HARD))
@settings(max_examples=60, deadline=None)
def test_any_parameter_keeps_the_gram_matrix(rows: int, columns: int, seed: int, method: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layer = rotation(nn.Linear(columns, rows).double(), method=method)
        parameter = layer.parametrizations.weight.original
        noise = 0.4 * torch.randn_like(parameter)
    if method == "ogd":  # stays on the group by its update, not by its map
        noise = torch.linalg.qr(parameter.detach() + noise)[0] - parameter.detach()
    parameter.data += noise
    w, w0 = matrix(layer), constraint(layer).neurons
    torch.testing.assert_close(w @ w.T, w0 @ w0.T, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_in_float64(method: str) -> None:
    torch.manual_seed(2)
    layer = rotation(nn.Linear(5, 3).double(), method=method)
    parameter = layer.parametrizations.weight.original.detach().clone()
    parameter = (parameter + 0.1 * torch.randn_like(parameter)).requires_grad_()
    assert torch.autograd.gradcheck(constraint(layer), (parameter,))


@pytest.mark.parametrize("method", METHODS)
def test_compiles_copies_and_round_trips(method: str) -> None:
    torch.manual_seed(0)
    eager = rotation(nn.Conv2d(2, 4, 2), method=method)
    parameter = eager.parametrizations.weight.original
    parameter.data += 0.05 * torch.randn_like(parameter)
    twin = copy.deepcopy(eager)
    x = torch.randn(2, 2, 5, 5)
    torch.compiler.reset()  # one code object, many methods: the limit of recompilations is for all of them
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), eager(x))
    fresh = rotation(nn.Conv2d(2, 4, 2), method=method)
    fresh.load_state_dict(eager.state_dict())
    assert torch.equal(fresh(x), eager(x))


@pytest.mark.parametrize("method", METHODS)
def test_two_forwards_before_a_backward_add_up(method: str) -> None:
    torch.manual_seed(0)
    layer = rotation(nn.Linear(5, 4), method=method)
    x, y = torch.randn(3, 5), torch.randn(3, 5)
    parameter = layer.parametrizations.weight.original
    (layer(x).square().sum() + layer(y).square().sum()).backward()
    both, parameter.grad = parameter.grad.clone(), None
    layer(x).square().sum().backward()
    layer(y).square().sum().backward()
    torch.testing.assert_close(parameter.grad, both, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_weights_are_computed_in_float32(method: str) -> None:
    torch.manual_seed(0)
    layer = rotation(nn.Linear(8, 6).bfloat16(), method=method)
    with torch.autocast("cpu", torch.bfloat16):
        weight = layer.weight
    assert weight.dtype == torch.bfloat16
    assert constraint(layer).neurons.dtype == torch.float32
    torch.testing.assert_close(matrix(layer), constraint(layer).neurons.bfloat16())


@pytest.mark.parametrize("method", METHODS)
def test_remove_leaves_a_plain_weight_that_still_trains(method: str) -> None:
    net = net_of(method)
    train(net, 3)
    x = torch.randn(2, 3, 6, 6)
    expected = net.eval()(x)
    keys = set(nn.Sequential(nn.Conv2d(3, 16, 3)).state_dict())
    weights.remove(net)
    assert keys <= set(net.state_dict())
    assert not any("parametrizations" in key for key in net.state_dict())
    assert torch.equal(net(x), expected)
    net(x).sum().backward()
    assert net[0].weight.grad.shape == (16, 3, 3, 3)


def test_the_report_gives_the_error_of_the_rotation() -> None:
    net = net_of("relaxed")
    net[0].parametrizations.weight.original.data.mul_(1.1)
    found = weights.report(net)
    assert found["0"]["orthogonality_error"] == pytest.approx(0.21 * 27**0.5, rel=1e-4)
    assert found["3"]["orthogonality_error"] == 0


# blocks -------------------------------------------------------------------------------------------------------------


def test_blocks_are_a_block_diagonal_rotation() -> None:
    torch.manual_seed(0)
    layer = rotation(nn.Linear(12, 7).double(), method="cayley", blocks=3)
    parameter = layer.parametrizations.weight.original
    parameter.data += torch.randn_like(parameter)
    assert parameter.shape == (3, 6)
    r = torch.block_diag(*constraint(layer).rotation(parameter).detach())
    torch.testing.assert_close(matrix(layer), constraint(layer).neurons @ r.T)
    torch.testing.assert_close(r @ r.T, torch.eye(12, dtype=torch.float64))


def test_wide_layers_fit_by_blocks() -> None:
    assert fewest_blocks(4608, 1024) == 6
    assert fewest_blocks(27, 1024) == 1
    assert fewest_blocks(13, 5) == 3  # of 5, 4 and 4
    layer = rotation(nn.Conv2d(512, 4, 3), blocks=None, block_size=256)
    parameter = layer.parametrizations.weight.original
    assert parameter.shape == (18, 256, 256)
    assert parameter.numel() < 4608**2 / 15


# relaxed ------------------------------------------------------------------------------------------------------------


def test_the_relaxation_is_the_norm_and_pulls_towards_the_group() -> None:
    net = net_of("relaxed")
    parameters = [net[i].parametrizations.weight.original for i in (0, 3)]
    torch.manual_seed(0)
    for p in parameters:
        p.data += 0.1 * torch.randn_like(p)
    expected = sum(float((p.detach()[0] @ p.detach()[0].T - torch.eye(p.shape[-1])).norm()) for p in parameters)
    assert float(weights.relaxation(net, 0.1)) == pytest.approx(0.1 * expected, rel=1e-5)
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        weights.relaxation(net, 1.0).backward()
        optimizer.step()
    assert float(weights.relaxation(net, 1.0)) < 0.2 * expected


def test_the_relaxation_has_a_finite_slope_at_the_start() -> None:
    net = net_of("relaxed")
    weights.relaxation(net).backward()
    assert torch.isfinite(net[0].parametrizations.weight.original.grad).all()
    with pytest.raises(ValueError, match="relaxed"):
        weights.relaxation(net_of("qr"))


# stochastic OPT -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", HARD)
def test_stochastic_training_keeps_the_spectrum_through_many_merges(method: str) -> None:
    net = net_of(method, sample=0.25)
    layers = [net[0], net[3]]
    before = [constraint(layer).neurons.double().clone() for layer in layers]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    if method == "ogd":
        CayleyRetraction(optimizer, net, lr=0.2)
    x, y = torch.randn(32, 3, 6, 6), torch.randint(4, (32,))
    for step in range(300):
        if step % 3 == 0:
            weights.resample(net, step // 3, optimizers=[optimizer], seed=7)
        optimizer.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    for layer, w0 in zip(layers, before, strict=True):
        w = matrix(layer).double()
        assert float((w - w0).norm() / w0.norm()) > 0.02, "it did not learn"
        torch.testing.assert_close(torch.linalg.svdvals(w), torch.linalg.svdvals(w0), rtol=1e-6, atol=1e-6)


def test_a_merge_changes_no_weight_resets_the_rotation_and_nothing_else() -> None:
    # the published script resets batch norm too, keeps the momentum, and applies the last rotation twice
    net = net_of("qr", sample=0.25)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    weights.resample(net, 0, optimizers=[optimizer])
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(8, 3, 6, 6)).square().sum().backward()
        optimizer.step()
    x = torch.randn(2, 3, 6, 6)
    expected = net.eval()(x)
    norm = {k: v.clone() for k, v in net[1].state_dict().items()}
    kept = optimizer.state[net[1].weight]["momentum_buffer"].clone()
    indices = constraint(net[3]).index.clone()
    assert weights.resample(net, 1, optimizers=[optimizer]) == ["0", "3"]
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-5)
    raw = net[3].parametrizations.weight.original
    assert torch.equal(raw, torch.eye(36)[None])
    assert raw not in optimizer.state
    assert torch.equal(optimizer.state[net[1].weight]["momentum_buffer"], kept)
    assert all(torch.equal(norm[k], v) for k, v in net[1].state_dict().items())
    assert not torch.equal(constraint(net[3]).index, indices)
    torch.testing.assert_close(weights.remove(net)(x), expected, atol=1e-5, rtol=1e-5)


def test_only_the_sampled_dimensions_move_and_all_have_their_turn() -> None:
    torch.manual_seed(0)
    layer = rotation(nn.Linear(20, 6), sample=5)
    seen: set[int] = set()
    for episode in range(30):
        weights.resample(layer, episode, seed=3)
        chosen = constraint(layer).index.tolist()
        assert len(set(chosen)) == 5
        seen |= set(chosen)
        before = matrix(layer).clone()
        raw = layer.parametrizations.weight.original
        raw.data += 0.3 * torch.randn_like(raw)
        moved = (matrix(layer) - before).abs().amax(0)
        assert set(torch.nonzero(moved > 1e-7).flatten().tolist()) <= set(chosen)
    assert seen == set(range(20))
    torch.testing.assert_close(matrix(layer).norm(dim=1), before.norm(dim=1), rtol=1e-6, atol=1e-6)


def test_dimensions_depend_on_position_alone() -> None:
    one, two = rotation(nn.Linear(20, 6), sample=5), rotation(nn.Linear(20, 6), sample=5)
    weights.resample(one, 0, seed=1)
    weights.resample(one, 4, seed=1)
    weights.resample(two, 4, seed=1)
    assert torch.equal(constraint(one).index, constraint(two).index)
    weights.resample(two, 4, seed=2)
    assert not torch.equal(constraint(one).index, constraint(two).index)


@pytest.mark.parametrize(
    ("share", "count"), [(None, 1_358_527), (4, 90_871), (8, 27_659), (16, 11_917)], ids=["full", "d/4", "d/8", "d/16"]
)
def test_the_number_of_parameters_is_that_of_the_reference_table(share: int | None, count: int) -> None:
    convs = [nn.Conv2d(3, 64, 3, bias=False), *(nn.Conv2d(64, 64, 3, bias=False) for _ in range(5))]
    net = nn.Sequential(*convs, nn.Conv2d(64, 64, 4, bias=False), nn.Conv2d(64, 100, 1, bias=False))
    assert sum(p.numel() for p in net.parameters()) == 257_984
    weights.apply(net, "rotation", "first", method="cayley")  # the first layer is never sampled in the paper
    weights.apply(net, "rotation", "!first,!last", method="cayley", sample=None if share is None else 1 / share)
    assert sum(p.numel() for p in net.parameters()) == count


# refinement ---------------------------------------------------------------------------------------------------------


def test_refinement_lowers_the_energy_and_training_keeps_it() -> None:
    net = net_of("qr")
    norms = matrix(net[0]).norm(dim=1)
    found = weights.refine(net, 100)
    assert found.keys() == {"0", "3"}
    for name, (before, after) in found.items():
        assert after < before
        assert after == pytest.approx(float(hyperspherical_energy(matrix(net[int(name)]), s=2)), rel=1e-5)
    torch.testing.assert_close(matrix(net[0]).norm(dim=1), norms, rtol=1e-5, atol=0)
    train(net, 50)
    assert float(hyperspherical_energy(matrix(net[0]), s=2)) == pytest.approx(found["0"][1], rel=1e-5)


def test_refinement_finds_the_known_minimum() -> None:
    # n + 1 points in n dimensions: the simplex, all cosines -1/n
    layer = rotation(nn.Linear(3, 4).double())
    weights.refine(layer, 2000, lr=0.02)
    unit = functional.normalize(matrix(layer), dim=1)
    cosines = (unit @ unit.T)[~torch.eye(4, dtype=torch.bool)]
    torch.testing.assert_close(cosines, torch.full_like(cosines, -1 / 3), atol=2e-3, rtol=0)


# refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gs"}, "choose qr, gram_schmidt"),
        ({"neurons": "xavier"}, "choose gaussian or weight"),
        ({"blocks": 5}, "must divide the 12"),
        ({"sample": 1}, "2 or more, or a fraction"),
        ({"sample": 2.5}, "2 or more, or a fraction"),
        ({"sample": 4, "method": "relaxed"}, "not orthogonal changes the neurons"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rotation(nn.Linear(12, 3), **options)


def test_nothing_to_resample_or_refine_is_refused() -> None:
    plain = rotation(nn.Linear(12, 3))
    with pytest.raises(ValueError, match="sample="):
        weights.resample(plain, 0)
    with pytest.raises(ValueError, match="rotation"):
        weights.refine(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="already constrained"):
        rotation(plain)


def test_averages_of_rotations_are_rotations() -> None:
    for method in HARD:
        torch.manual_seed(0)
        net = rotation(nn.Conv2d(3, 4, 2), method=method)
        spectrum = torch.linalg.svdvals(matrix(net))
        average = torch.optim.swa_utils.AveragedModel(net)
        moving = copy.deepcopy(net)
        for _ in range(4):
            train(nn.Sequential(net, nn.Flatten(), nn.Linear(100, 4)), 5, lr=0.3)
            average.update_parameters(net)
            for mine, other in zip(moving.parameters(), net.parameters(), strict=True):
                mine.data.lerp_(other.data, 0.5)
        for averaged in (average.module.eval(), moving.eval()):
            assert torch.allclose(torch.linalg.svdvals(matrix(averaged)), spectrum, atol=1e-5), method
            assert weights.report(averaged)
