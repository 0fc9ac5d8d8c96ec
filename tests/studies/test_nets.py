"""The nets that the studies bring with them."""

from __future__ import annotations

import pytest
import torch

from orthogan.studies.papers.covariance_nets import PooledResNet, StemResNet
from orthogan.studies.papers.learned_neurons import LearnedNeurons


def build(transform: str) -> LearnedNeurons:
    torch.manual_seed(0)
    return LearnedNeurons(transform=transform, depth=6, resolution=16, image_channels=1, channels=4, num_classes=10)  # pyright: ignore[reportArgumentType]


def step(net: LearnedNeurons, rate: float = 0.5) -> None:
    net(torch.randn(8, 1, 16, 16)).square().mean().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            assert parameter.grad is not None
            parameter -= rate * parameter.grad / parameter.grad.norm().clamp_min(1e-6)


@pytest.mark.parametrize("transform", ["qr", "free"])
def test_a_turned_weight_is_its_neurons_times_a_matrix_that_is_orthogonal_or_not(transform: str) -> None:
    net = build(transform)
    step(net)
    off = []
    for module in net.modules():
        if hasattr(module, "parametrizations"):
            assert isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
            plain, turned = module.parametrizations.weight.original, module.parametrizations.weight[0]  # pyright: ignore
            neurons, weight = plain.detach().flatten(1), module.weight.detach().flatten(1)
            if transform == "free":
                torch.testing.assert_close(weight, neurons @ turned.turn.detach().mT)
            off.append(float((weight.norm(dim=1) / neurons.norm(dim=1) - 1).abs().max()))
    assert len(off) >= 6
    # a rotation leaves the lengths of the neurons alone, any other matrix does not
    assert max(off) < 1e-4 if transform == "qr" else max(off) > 1e-2


def test_both_parts_are_trained_and_the_classifier_is_left_alone() -> None:
    net = build("qr")
    names = [name for name, _ in net.named_parameters()]
    assert any(name.endswith("original") for name in names)
    assert any(name.endswith("turn") for name in names)
    assert "linear.weight" in names
    with pytest.raises(ValueError, match="transform 'house': choose qr or free"):
        build("house")


@pytest.mark.parametrize("skew", [False, True])
def test_a_stem_and_a_reduction_may_be_orthogonal_maps(skew: bool) -> None:
    torch.manual_seed(0)
    shared = {"resolution": 16, "image_channels": 1, "num_classes": 10}
    stem = StemResNet(depth=18, channels=8, skew=skew, **shared)
    pooled = PooledResNet(depth=14, channels=4, dimension=8, skew=skew, **shared)
    for net, layer in ((stem, stem.conv), (pooled, pooled.pool.reduction[0])):  # pyright: ignore
        assert net.eval()(torch.randn(3, 1, 16, 16)).shape == (3, 10)
        if skew:
            x = torch.randn(2, layer.in_channels, 8, 8)
            ratio = layer(x).detach().flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
            if layer.in_channels <= layer.out_channels:  # an isometry, up to the series that ends
                torch.testing.assert_close(ratio, torch.ones(2), rtol=0.02, atol=0)
            else:
                assert float(ratio.max()) <= 1.02


def test_pooling_by_the_mean_is_the_plain_net() -> None:
    torch.manual_seed(0)
    net = PooledResNet(depth=14, channels=4, method="mean", resolution=16, image_channels=1, num_classes=10)
    assert net.pool is None
    assert net(torch.randn(2, 1, 16, 16)).shape == (2, 10)
