"""Neurons that are learned beside the matrix that rotates them."""

from __future__ import annotations

import pytest
import torch

from orthogan.models.classifiers.learned_neurons import LearnedNeurons


def build(transform: str) -> LearnedNeurons:
    torch.manual_seed(0)
    return LearnedNeurons(transform=transform, depth=6, resolution=16, image_channels=1, channels=4, num_classes=10)


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
            plain, turned = module.parametrizations.weight.original, module.parametrizations.weight[0]
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
