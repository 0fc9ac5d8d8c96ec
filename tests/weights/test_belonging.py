"""A weight that its constraint does not know: whatever way it comes, the effective weight is that of this weight."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orthogan import penalties, weights
from orthogan.evaluation.spectrum.layer_spectrum import spectrum
from orthogan.linalg import stable_rank_projection
from orthogan.weights.belonging import belong, top_vectors

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "spectral": ("spectral", {}),
    "k0": ("stable_rank", {"c": 0.5, "k": 0}),
    "k1": ("stable_rank", {"c": 0.5}),
    "k2": ("stable_rank", {"c": 0.5, "k": 2}),
    "rank 1": ("stable_rank", {"c": 0.05}),
}
MAKES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(16, 12, bias=False),
    "row": lambda: nn.Linear(9, 1),
    "column": lambda: nn.Linear(1, 9),
    "embedding": lambda: nn.Embedding(11, 5),
    "conv": lambda: nn.Conv2d(3, 8, 3),
    "channels last": lambda: nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 3),
    "groups": lambda: nn.Conv2d(8, 12, 3, groups=4),
}


def raw(layer: nn.Module) -> Tensor:
    return layer.parametrizations.weight.original


def view(layer: nn.Module) -> Any:
    return layer.parametrizations.weight[0].view


def assigned(layer: nn.Module, new: Tensor) -> None:
    layer.weight = new


def loaded_alone(layer: nn.Module, new: Tensor) -> None:
    layer.load_state_dict({"parametrizations.weight.original": new}, strict=False)


def loaded_below(layer: nn.Module, new: Tensor) -> None:
    net = nn.ModuleDict({"part": layer})
    state = {key: value for key, value in net.state_dict().items() if not key.endswith((".u", ".v"))}
    net.load_state_dict(state | {"part.parametrizations.weight.original": new}, strict=False)


def written(layer: nn.Module, new: Tensor) -> None:
    with torch.no_grad():
        raw(layer).copy_(new)


def written_after_a_look(layer: nn.Module, new: Tensor) -> None:
    layer.eval()
    _ = layer.weight
    raw(layer).data.copy_(new)  # which the version of the parameter does not count


def copied(layer: nn.Module, new: Tensor) -> None:
    written(layer, new)
    layer.load_state_dict(copy.deepcopy(layer).state_dict())


def inverted(layer: nn.Module, new: Tensor) -> None:
    layer.parametrizations.weight.right_inverse(new)


WAYS = [assigned, loaded_alone, loaded_below, written, written_after_a_look, copied, inverted]


def wanted(kind: str, matrix: Tensor, layer: nn.Module) -> Tensor:
    matrix = matrix / torch.linalg.svdvals(matrix)[0]
    if kind == "spectral":
        return matrix
    constraint = layer.parametrizations.weight[0]
    return stable_rank_projection(matrix, constraint.target, {"k0": 0, "k2": 2}.get(kind, 1))


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_comes_without_its_vectors_is_normalised_in_eval_mode(kind: str, make: str) -> None:
    for seed, way in enumerate(WAYS):
        torch.manual_seed(seed)
        layer = MAKES[make]()
        weights.apply(layer, KINDS[kind][0], **KINDS[kind][1])
        new = torch.randn(raw(layer).shape)
        way(layer, new)
        layer.eval()
        found = view(layer).block_diagonal(layer.weight.detach())
        expected = wanted(kind, view(layer).block_diagonal(new).double(), layer)
        torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=1e-2, msg=lambda m, w=way: f"{w}: {m}")


@pytest.mark.parametrize("kind", ["spectral", "k1", "k2"])
@pytest.mark.parametrize("way", [assigned, loaded_alone, written])
def test_every_tool_sees_it_while_the_net_still_trains(kind: str, way: Callable[[nn.Module, Tensor], None]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(16, 12, bias=False)
    weights.apply(layer, KINDS[kind][0], **KINDS[kind][1])
    new = torch.randn(12, 16)
    way(layer, new)
    expected = wanted(kind, new.double(), layer)
    state = copy.deepcopy(layer.state_dict())
    assert weights.report(layer)[""]["sigma_after"] == pytest.approx(1, abs=1e-2)
    assert spectrum(layer)[0].sigma == pytest.approx(1, abs=1e-2)
    value = penalties.apply(layer, "soft_orthogonality")
    assert float(value) == pytest.approx(float(penalties.soft_orthogonality(expected)), rel=1e-2)
    assert all(torch.equal(value, state[key]) for key, value in layer.state_dict().items())
    assert layer.training
    weights.remove(layer)
    torch.testing.assert_close(layer.weight.detach().double(), expected, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("method", ["qr", "householder", "cayley", "polar", "bjorck"])
def test_an_orthogonal_parameter_that_was_written_in_place_stays_orthogonal(method: str) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        layer = weights.orthogonal(nn.Linear(16, 4, bias=False), method=method)
        written(layer, torch.randn_like(raw(layer)))
        values = torch.linalg.svdvals(layer.eval().weight.detach())
        assert float((values - 1).abs().max()) < 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_what_belongs_is_left_alone(kind: str) -> None:
    """Normal training: eval mode takes the vectors that the training has, to the bit."""
    torch.manual_seed(0)
    layer = nn.Linear(16, 12)
    weights.apply(layer, KINDS[kind][0], **KINDS[kind][1])
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    for _ in range(3):
        layer(torch.randn(4, 16)).square().mean().backward()
        optimizer.step()
    with weights.hold_power_iteration(layer):
        training = layer.weight.detach().clone()
    assert torch.equal(layer.eval().weight, training)


def test_vectors_that_follow_one_another_or_are_near_belong_and_others_do_not() -> None:
    torch.manual_seed(0)
    matrix = torch.diag(torch.tensor([5.0, 1.0, 0.5]))
    axes = torch.eye(3)
    assert belong(matrix, axes[0], axes[0])
    assert not belong(matrix, axes[0], -axes[0])
    assert not belong(matrix, axes[0] * 2, axes[0])
    assert not belong(matrix, torch.tensor([0.6, 0.8, 0.0]), axes[0])
    assert not belong(torch.tensor([[3.0, 0.0, 4.0]]), torch.ones(1), axes[0])  # a row: u is always right
    assert belong(torch.zeros(3, 3), axes[0], axes[1])
    u, v = top_vectors(torch.randn(300, 200))
    assert float(u.norm()) == pytest.approx(1, abs=1e-5)
    assert u.shape == (300,)
    assert v.shape == (200,)


@pytest.mark.parametrize("shape", [(300, 200), (1, 7), (7, 1), (3, 3), (64, 2000)])
def test_top_vectors_are_those_of_the_svd(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    for matrix in (torch.randn(shape), torch.eye(*shape), torch.ones(shape)):
        u, v = top_vectors(matrix)
        assert float(u @ matrix @ v) == pytest.approx(float(torch.linalg.svdvals(matrix)[0]), rel=2e-3)


@pytest.mark.parametrize(
    ("kind", "make"),
    [("spectral", "transposed"), ("spectral", "groups"), ("k1", "conv"), ("k2", "linear"), ("bjorck", "groups")],
)
def test_compiled_code_in_eval_mode_sees_a_weight_that_was_written_in_place(kind: str, make: str) -> None:
    torch.manual_seed(0)
    layer = MAKES[make]()
    name, options = KINDS.get(kind, ("orthogonal", {"method": "bjorck"}))
    weights.apply(layer, name, **options)
    with torch.no_grad():
        raw(layer).copy_(torch.randn_like(raw(layer)))
    layer.eval()
    torch._dynamo.reset()
    compiled = torch.compile(lambda: layer.weight, backend="eager", fullgraph=True)()
    torch.testing.assert_close(compiled, layer.weight)
    blocks = layer.parametrizations.weight[0].view.blocks(layer.weight)  # pyright: ignore
    assert abs(float(torch.linalg.matrix_norm(blocks.detach(), 2).amax()) - 1) < 0.02


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("spectral", {}),
        ("stable_rank", {"c": 0.5, "k": 2}),
        ("orthogonal", {"method": "bjorck"}),
        ("skew_orthogonal", {}),
    ],
)
def test_an_ensemble_under_vmap_is_its_networks(kind: str, options: dict[str, Any]) -> None:
    nets, x = [], torch.randn(2, 8, 4, 4, dtype=torch.float64)
    for seed in range(2):
        torch.manual_seed(seed)
        groups = 1 if kind == "skew_orthogonal" else 2
        net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=False)).double()
        weights.apply(net, kind, **options)
        with torch.no_grad():
            raw(net[0]).copy_(torch.randn_like(raw(net[0])))
        nets.append(net)
    for training in (False, True):  # at first, the stored vectors belong to other weights
        for net in nets:
            net.train(training)
        state, base = torch.func.stack_module_state(nets), copy.deepcopy(nets[0])  # pyright: ignore
        found = torch.func.vmap(lambda p, b: torch.func.functional_call(base, (p, b), (x,)))(*state)  # noqa: B023
        torch.testing.assert_close(found, torch.stack([net(x) for net in nets]))


@pytest.mark.parametrize("kind", ["spectral", "k1", "k2"])
def test_the_largest_numbers_of_float16_can_be_assigned(kind: str) -> None:
    torch.manual_seed(0)
    layer = MAKES["linear"]().half()
    weights.apply(layer, KINDS[kind][0], **KINDS[kind][1])
    wanted = torch.randn(layer.weight.shape).clamp(-2, 2) * 30_000  # pyright: ignore
    layer.weight = wanted.half()
    found = layer.eval().weight.detach().float()  # pyright: ignore
    assert float(torch.linalg.matrix_norm(found, 2)) == pytest.approx(1, abs=0.01)
    if kind == "spectral":
        torch.testing.assert_close(found, wanted / torch.linalg.matrix_norm(wanted, 2), atol=2e-3, rtol=2e-2)
