"""Penalties over whole nets."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from orthogan import weights
from orthogan.penalties import PENALTIES, Penalty, apply, conv_orthogonality, soft_orthogonality
from orthogan.weights.network import constrained, unconstrained


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
    expected = 0.5 * (PENALTIES[name](weight(model, 0)) + PENALTIES[name](weight(model, 4)))
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
    with weights.frozen(model):
        torch.testing.assert_close(value, soft_orthogonality(weight(model, 4)))
    assert unconstrained(model[4], "weight").grad is not None
    assert all(not constraint.held for *_, constraint in constrained(model))


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
        ("zzz", {}, "penalty 'zzz'; choose from soft_orthogonality, double"),
        ("srip", {"iteration": 3}, "penalty srip: no option 'iteration'; did you mean 'iterations'"),
        ("srip", {"zzz": 3}, "no option 'zzz'; choose from iterations, side"),
        ("off_diagonal", {"side": "rows"}, "no option 'side'; it has none"),
        ("conv_orthogonality", {"stride": 2}, "no option 'stride'"),
        ("srip", {"weight": float("nan")}, "penalty srip: weight is nan"),
        ("srip", {"layers": "convs"}, "did you mean 'conv'"),
    ],
)
def test_refusals(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Penalty(net(), name, **options)
