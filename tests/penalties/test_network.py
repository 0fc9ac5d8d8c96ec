"""Penalties over whole nets."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orthogan import weights
from orthogan.penalties import PENALTIES, Penalty, apply, conv_orthogonality, soft_orthogonality
from orthogan.weights.network import list_constrained, unconstrained


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2),
        nn.Conv2d(6, 6, 3, stride=2, dilation=2, groups=3),
        nn.Linear(8, 5),
    )


def weight(model: nn.Sequential, index: int) -> Tensor:
    value = model[index].weight
    assert isinstance(value, Tensor)
    return value


@pytest.mark.parametrize("name", [name for name in PENALTIES if name != "conv_orthogonality"])
def test_every_penalty_is_the_weighted_sum_over_the_chosen_layers(name: str) -> None:
    model = net()
    expected = 0.5 * (PENALTIES.get(name).function(weight(model, 0)) + PENALTIES.get(name).function(weight(model, 4)))
    penalty = Penalty(model, name, 0.5, layers=["0", "4"])
    assert penalty.names == ["0", "4"]
    assert [value.shape for value in penalty.values()] == [(), ()]
    torch.testing.assert_close(penalty(), expected)
    torch.testing.assert_close(apply(model, name, 0.5, "0,4"), expected)
    penalty().backward()
    assert weight(model, 0).grad is not None
    assert weight(model, 2).grad is None


def test_convolutions_are_judged_with_their_own_stride_dilation_and_groups() -> None:
    model = net()
    found = Penalty(model, "conv_orthogonality").values()
    expected = [
        conv_orthogonality(weight(model, 0), 2),
        conv_orthogonality(weight(model, 2), 2, groups=2),
        conv_orthogonality(weight(model, 3), 1, groups=3),  # both axes move one tap
        soft_orthogonality(weight(model, 4)),
    ]
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want)


def test_a_transposed_convolution_without_penalty_keeps_the_norm() -> None:
    layer = nn.ConvTranspose2d(4, 1, 2, stride=2, bias=False)
    layer.weight.data.copy_(torch.eye(4).reshape(4, 1, 2, 2))
    assert float(apply(layer, "conv_orthogonality").detach()) == 0
    x = torch.randn(2, 4, 3, 3)
    assert float(layer(x).norm()) == pytest.approx(float(x.norm()), rel=1e-6)


def test_transposed_kernels_are_matrices_by_their_outputs() -> None:
    layer = nn.ConvTranspose2d(3, 5, 2)
    torch.testing.assert_close(apply(layer, "soft_orthogonality"), soft_orthogonality(layer.weight.transpose(0, 1)))


GROUPED = {
    "conv1d": nn.Conv1d(6, 4, 3, groups=2, bias=False),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4, bias=False),
    "transposed": nn.ConvTranspose2d(4, 6, 2, groups=2, bias=False),
    "transposed, depthwise": nn.ConvTranspose1d(3, 6, 5, groups=3, bias=False),
    "conv3d": nn.Conv3d(4, 4, 2, groups=2, bias=False),
}


def without_groups(layer: nn.Module) -> nn.Module:
    """The same map with groups = 1: zeros where no input of another group enters."""
    kind: type[nn.modules.conv._ConvNd] = type(layer)
    dense: Any = kind(layer.in_channels, layer.out_channels, layer.kernel_size, bias=False)
    with torch.no_grad():
        dense.weight.zero_()
        for i, block in enumerate(layer.weight.chunk(layer.groups)):
            rows, columns = block.shape[:2]
            dense.weight[i * rows : (i + 1) * rows, i * columns : (i + 1) * columns] = block
    x = torch.randn(2, layer.in_channels, *[4] * (layer.weight.dim() - 2))
    torch.testing.assert_close(layer(x), dense(x))
    return dense


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("kind", GROUPED)
def test_a_kernel_with_groups_counts_as_the_same_map_without(kind: str, name: str) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(GROUPED[kind]).double()
    dense = without_groups(layer.float()).double()
    layer = layer.double()
    value, expected = apply(layer, name), apply(dense, name)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    value.backward()
    expected.backward()
    rows, columns = layer.weight.shape[:2]
    step = rows // layer.groups
    blocks = [
        dense.weight.grad[i * step : (i + 1) * step, i * columns : (i + 1) * columns] for i in range(layer.groups)
    ]
    torch.testing.assert_close(layer.weight.grad, torch.cat(blocks), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("norm", ["none", "spectral"])
@pytest.mark.parametrize("name", PENALTIES)
def test_a_shared_parameter_counts_once(name: str, norm: str) -> None:
    torch.manual_seed(0)
    one, other = nn.Linear(4, 3, bias=False), nn.Linear(4, 3, bias=False)
    other.weight = one.weight
    tied = nn.ModuleDict({"a": one, "b": other, "c": one, "d": nn.Linear(4, 3)})
    if norm == "spectral":
        weights.apply(tied, norm, "d")
    alone = nn.ModuleDict({"a": one, "d": tied["d"]})
    penalty = Penalty(tied, name)
    assert penalty.names == ["a", "d"]
    torch.testing.assert_close(penalty(), apply(alone, name))


def test_the_same_kernel_at_two_strides_is_two_maps() -> None:
    torch.manual_seed(0)
    one, other = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, stride=2)
    other.weight = one.weight
    net = nn.Sequential(one, other)
    assert len(Penalty(net, "conv_orthogonality").selected) == 2
    assert len(Penalty(net, "soft_orthogonality").selected) == 1


@pytest.mark.parametrize("name", PENALTIES)
def test_frozen_and_empty_layers_are_harmless(name: str) -> None:
    model = nn.ModuleDict({"frozen": nn.Linear(4, 3), "learned": nn.Linear(4, 3)})
    expected = apply(model, name).detach()
    model["frozen"].requires_grad_(False)
    with pytest.warns(UserWarning, match="zero-element"):
        model["empty"] = nn.Linear(3, 0)
    value = apply(model, name)
    assert torch.equal(value.detach(), expected)
    value.backward()
    assert model["frozen"].weight.grad is None
    assert model["learned"].weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", PENALTIES)
def test_half_precision_weights_give_the_value_of_their_numbers(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, 2).to(dtype)
    value = apply(layer, name)
    exact = apply(copy.deepcopy(layer).double(), name)
    assert value.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(float(exact.detach()), rel=1e-4)
    value.backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == dtype
    assert bool(torch.isfinite(layer.weight.grad).all())


@pytest.mark.parametrize("name", PENALTIES)
def test_complex_weights_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="complex64 matrix: only real"):
        apply(nn.Linear(3, 3, dtype=torch.complex64), name)
    with pytest.raises(ValueError, match="complex128 matrix: only real"):
        PENALTIES.get(name).function(torch.zeros(3, 3, dtype=torch.complex128))


def test_the_penalty_follows_the_weights_and_its_own_weight() -> None:
    model = net()
    penalty = Penalty(model, "soft_orthogonality", 2.0, "linear", side="columns")
    before = penalty()
    with torch.no_grad():
        weight(model, 4).mul_(3)
    torch.testing.assert_close(penalty(), 2 * soft_orthogonality(weight(model, 4), "columns"))
    assert float(penalty()) != float(before)
    penalty.weight = 0.0
    assert float(penalty()) == 0


def test_training_with_it_reaches_orthogonality() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 9))
    penalty = Penalty(model, "soft_orthogonality", 0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(200):
        optimizer.zero_grad()
        penalty().backward()
        optimizer.step()
    assert all(float(value.detach()) < 1e-6 for value in penalty.values())


def test_a_constrained_weight_is_judged_as_it_acts_and_its_vectors_stay() -> None:
    model = net().train()
    weights.apply(model, "spectral")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    value = apply(model, "soft_orthogonality", layers="linear")
    value.backward()
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
    with weights.hold_power_iteration(model):
        torch.testing.assert_close(value, soft_orthogonality(weight(model, 4)))
    assert unconstrained(model[4], "weight").grad is not None
    assert all(not constraint.held for *_, constraint in list_constrained(model))


def test_a_copy_judges_the_copied_net() -> None:
    model = net()
    penalty = Penalty(model, "off_diagonal")
    twin = copy.deepcopy(penalty)
    before = penalty().detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert float(penalty()) == 0
    assert torch.equal(twin().detach(), before)


@pytest.mark.parametrize("constraint", ["none", "spectral"])
def test_compiles_into_one_graph(constraint: str) -> None:
    torch._dynamo.reset()
    model = net()
    weights.apply(model, constraint)
    penalty = Penalty(model, "conv_orthogonality", 0.1)
    compiled = torch.compile(lambda: penalty(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(), penalty())


def test_autocast_leaves_a_float32_number() -> None:
    model = net()
    for name in PENALTIES:
        expected = apply(model, name)
        with torch.autocast("cpu", torch.bfloat16):
            got = apply(model, name)
        assert got.dtype == torch.float32
        assert got.shape == ()
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("soft_ortogonality", {}, "penalty 'soft_ortogonality'; did you mean 'soft_orthogonality'"),
        ("zzz", {}, "unknown penalty 'zzz'; known: conv_orthogonality, disentangled_norm, double"),
        ("srip", {"iteration": 3}, "penalty srip: no option 'iteration'; did you mean 'iterations'"),
        ("srip", {"zzz": 3}, "no option 'zzz'; choose from iterations, side, squared"),
        ("off_diagonal", {"side": "rows"}, "no option 'side'; it has none"),
        ("conv_orthogonality", {"stride": 2}, "no option 'stride'"),
        ("srip", {"weight": float("nan")}, "penalty srip: weight is nan"),
        ("srip", {"layers": "convs"}, "did you mean 'conv'"),
    ],
)
def test_refusals(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Penalty(net(), name, **options)
