"""Constraints over whole nets: put on, reported, taken off, and agreed on by two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orthogan import weights
from orthogan.weights.network import list_constrained
from tests.fixtures.two_processes import both_finish


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 5))


def test_apply_names_what_it_touched_and_refuses_nothing() -> None:
    model = net()
    assert weights.apply(model, "stable_rank", c=0.4) == ["0", "3"]
    assert [name for name, *_ in list_constrained(model)] == ["0", "3"]
    assert weights.apply(net(), "none") == []
    with pytest.raises(ValueError, match="no linear, embedding or convolution"):
        weights.apply(nn.ReLU(), "spectral")
    with pytest.raises(ValueError, match="did you mean 'spectral'"):
        weights.apply(net(), "spectrall")


@pytest.mark.parametrize("kind", ["spectral", "stable_rank"])
def test_remove_bakes_the_effective_weight_in(kind: str) -> None:
    model = net()
    weights.apply(model, kind)
    x = torch.randn(2, 1, 6, 6)
    model(x)
    u = model[0].parametrizations.weight[0].u.clone()
    expected = model.eval()(x)
    weights.remove(model.train())
    assert set(model.state_dict()) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert torch.equal(model(x), expected)
    assert u.shape == (6,)
    with pytest.raises(ValueError, match="no constrained weight"):
        weights.remove(model)


def test_remove_of_one_layer_leaves_the_others() -> None:
    model = net()
    weights.apply(model, "spectral")
    weights.remove(model[3], "weight")
    assert [name for name, *_ in list_constrained(model)] == ["0"]


def test_report_is_exact_and_moves_nothing() -> None:
    model = net()
    weights.apply(model, "stable_rank", c=0.3)
    before = {k: t.clone() for k, t in model.state_dict().items()}
    found = weights.report(model)
    assert all(torch.equal(before[k], t) for k, t in model.state_dict().items())
    values = torch.linalg.svdvals(model[3].parametrizations.weight.original.detach())
    layer = found["3"]
    assert layer["sigma"] == pytest.approx(float(values[0]), rel=1e-5)
    assert layer["stable_rank_before"] == pytest.approx(float(values.square().sum() / values[0] ** 2), rel=1e-5)
    assert layer["target"] == pytest.approx(1.5)
    assert layer["active"]
    assert layer["scale"] < 1
    assert layer["stable_rank_after"] == pytest.approx(1.5, rel=0.02)
    weights.apply(plain := net(), "spectral")
    assert weights.report(plain)["0"].keys() == {
        "sigma",
        "sigma_after",
        "stable_rank_before",
        "stable_rank_after",
    }


TWO = """
import os, sys
import torch, torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from orthogan import weights
dist.init_process_group("gloo")
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1))
weights.apply(net, "stable_rank", c=0.3)
model = DDP(net)
optimizer = torch.optim.SGD(model.parameters(), 0.1)
for step in range(3):
    torch.manual_seed(10 * step + dist.get_rank())
    optimizer.zero_grad()
    (model(torch.randn(4, 1, 6, 6)).mean() - model(torch.randn(4, 1, 6, 6)).mean()).backward()
    optimizer.step()
flat = torch.cat([t.flatten() for t in net.state_dict().values()])
both = [torch.empty_like(flat) for _ in range(2)]
dist.all_gather(both, flat)
assert torch.equal(*both) and torch.isfinite(flat).all()
"""


@pytest.mark.slow
def test_two_processes_with_two_forwards_before_a_backward_agree(tmp_path: Path) -> None:
    both_finish(TWO, tmp_path)


@pytest.mark.parametrize("call", [weights.spectral_norm, weights.remove, weights.stable_rank_norm, weights.rotation])
@pytest.mark.parametrize("wrong", ["layer", None, torch.ones(3, 4)], ids=str)
def test_what_is_not_a_module_is_refused(call: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match=rf"expected a (layer|network) \(torch.nn.Module\), not {type(wrong).__name__}"):
        call(wrong)
    with pytest.raises(TypeError, match="expected a network"):
        weights.apply(wrong, "spectral")


def test_a_class_in_place_of_a_layer_is_named() -> None:
    with pytest.raises(TypeError, match="not Linear itself"):
        weights.spectral_norm(nn.Linear)  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "value"), [("c", "x"), ("c", None), ("k", 1.5), ("k", "x"), ("n_power_iterations", 2.5)]
)
def test_options_of_another_type_are_named(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} is {value!r}: expected"):
        weights.stable_rank_norm(nn.Linear(4, 3), **{name: value})


def test_lazy_layers_need_a_batch_first() -> None:
    net = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet: run the network once on a batch"):
        weights.apply(net, "spectral")
    with pytest.raises(ValueError, match="has no shape yet"):
        weights.spectral_norm(net[0])
    net(torch.ones(2, 4))
    assert weights.apply(net, "spectral") == ["0"]


EVERY: dict[str, tuple[str, dict[str, Any]]] = {
    "spectral": ("spectral", {}),
    "stable rank": ("stable_rank", {"c": 0.5}),
    "stable rank, k=2": ("stable_rank", {"c": 0.5, "k": 2}),
    **{method: ("orthogonal", {"method": method}) for method in ("qr", "householder", "cayley", "polar", "bjorck")},
    "rotation": ("rotation", {"method": "cayley"}),
    "skew": ("skew_orthogonal", {}),
    "projector": ("householder", {"rank": 2}),
}


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kind", EVERY)
def test_a_network_built_on_the_meta_device_is_the_one_that_is_loaded_into_it(kind: str, assign: bool) -> None:
    def build() -> nn.Module:
        layers = nn.Linear(6, 8), nn.ReLU(), nn.Unflatten(1, (8, 1, 1)), nn.Conv2d(8, 4, 3, padding=1), nn.Flatten()
        net = nn.Sequential(*layers, nn.Linear(4, 9))
        name, options = EVERY[kind]
        weights.apply(net, name, **options)
        return net

    torch.manual_seed(0)
    net, x = build().eval(), torch.randn(3, 6)
    with torch.device("meta"):
        other = build()
    assert all(tensor.is_meta for tensor in other.state_dict().values())
    if not assign:
        other.to_empty(device="cpu")
    other.load_state_dict({key: value.clone() for key, value in net.state_dict().items()}, assign=assign)
    torch.testing.assert_close(other.eval()(x), net(x))
    other.train()(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in other.parameters())


@pytest.mark.parametrize(
    "kind", ["spectral", "stable_rank", "rotation", "orthogonal", "householder", "skew_orthogonal"]
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_frozen_layer_stays_frozen(kind: str, bias: bool) -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 16))
    for layer in (net[0], net[2]):
        layer.weight.requires_grad_(False)
        layer.bias.requires_grad_(bias)  # pyright: ignore[reportOptionalMemberAccess]
    weights.apply(net, kind, "linear" if kind == "householder" else "conv")
    trainable = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert trainable == ({"0.bias", "2.bias"} if bias else set())
