"""Lengths of traversals: closed forms, layers and classes, and the scores that a Directions file gets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from orthogan.errors import UserError
from orthogan.evaluation.paths.distances import Distance
from orthogan.evaluation.paths.traversal_length import traversal_length
from orthogan.latent.directions import Directions
from orthogan.models.families.stylegan2 import StyleGAN2Generator
from tests.fixtures.linear_paths import DIM, Linear, Noisy, WideLatent
from tests.fixtures.scored import Patches

PIXEL = {"distance": "pixel", "samples": 3, "steps": 7, "progress": False}


def test_of_a_linear_generator_each_length_is_that_of_a_straight_line() -> None:
    net = Linear()
    rows = torch.randn(4, DIM, generator=torch.Generator().manual_seed(2))
    result, scored = traversal_length(net, Directions(rows.numpy(), method="sefa"), threshold=15.0, **PIXEL)
    expected = 8 * (rows.double() @ net.matrix).square().mean(1).sqrt()
    np.testing.assert_allclose(scored.scores["pixel length"], expected.numpy(), rtol=1e-6)
    active = expected[expected > 15]
    assert 0 < len(active) < 4
    assert result.value == pytest.approx(float(active.sum()), rel=1e-6)
    assert result.parts["active"] == len(active)
    assert result.parts["mean"] == pytest.approx(float(active.sum()) / 4, rel=1e-6)
    assert result.parts["spread"] == pytest.approx(0, abs=1e-6)  # a line is as long from everywhere
    assert result.label == "pixel_traversal_length[sefa,±4,7 steps,>15]"


def test_lpips_is_added_up_without_a_root_as_published() -> None:
    net, steps = Linear(), 9
    lpips = Distance("lpips-vgg16", "a stand-in", lambda a, b: (a - b).square().flatten(1).mean(1))
    axes = Directions(np.eye(DIM), method="latent axes")
    result, scored = traversal_length(net, axes, distance=lpips, samples=2, steps=steps, progress=False)
    expected = (steps - 1) * net.matrix.square().mean(1) * (8 / (steps - 1)) ** 2
    np.testing.assert_allclose(scored.scores["perceptual length"], expected.numpy(), rtol=1e-6)
    assert result.metric == "tpl"
    assert result.is_better(result.value - 1)


def test_the_coordinate_is_replaced_not_added_to() -> None:
    net = Linear()
    shown: list[Tensor] = []
    net.register_forward_pre_hook(lambda module, inputs: shown.append(inputs[0]))
    direction = np.zeros((1, DIM))
    direction[0, 1] = 2.0
    traversal_length(net, Directions(direction, method="mine"), **{**PIXEL, "samples": 1, "extent": 3.0, "steps": 4})
    walked = torch.cat(shown)
    np.testing.assert_allclose(walked[:, 1], [-6, -2, 2, 6], atol=1e-6)
    others = walked[:, [0, 2, 3, 4]]
    assert torch.equal(others, others[:1].expand_as(others))
    assert others.abs().max() > 0


def test_same_seed_same_numbers_whatever_the_batch_and_the_noise() -> None:
    axes = Directions(np.eye(6), method="latent axes")
    whole, parts, other = (
        traversal_length(Patches(), axes, batch_size=n, seed=seed, **PIXEL)[0].value
        for n, seed in ((64, 0), (2, 0), (64, 1))
    )
    assert parts == pytest.approx(whole, rel=1e-5)
    assert other != whole
    small = Directions(np.eye(DIM), method="latent axes")
    quiet, noisy = (traversal_length(kind(), small, **PIXEL)[0].value for kind in (Linear, Noisy))
    assert noisy == pytest.approx(quiet, rel=1e-9)


def test_a_direction_that_does_nothing_is_not_active() -> None:
    net = WideLatent()
    net.matrix[2:] = 0
    result, scored = traversal_length(net, **PIXEL)
    assert scored.method == "latent axes"
    assert len(scored) == DIM
    lengths = np.array(scored.scores["pixel length"])
    assert result.value == pytest.approx(lengths[lengths > 0.1].sum())
    assert {"samples", "walk", "directions", "distance", "seed", "seconds"} <= set(result.protocol)


def test_classes_come_in_turn() -> None:
    net = Linear(num_classes=2)
    traversal_length(net, Directions(np.eye(DIM), method="axes"), **PIXEL)
    assert torch.cat(net.labels).view(3, -1).unique(dim=1).tolist() == [[0], [1], [0]]


def test_in_w_only_the_directions_own_layers_move() -> None:
    torch.manual_seed(0)
    net = StyleGAN2Generator(resolution=32, image_channels=3, channels=4, latent_dim=6, mapping_layers=2)
    shown: list[Tensor] = []
    hooked, synthesis = net, net.synthesis
    hooked.synthesis = lambda w, seeds=None: shown.append(w) or synthesis(w, seeds)
    some = Directions(np.eye(6)[:1], method="sefa", space="w", layers=[1, 2])
    result, _ = traversal_length(net, some, **{**PIXEL, "samples": 1})
    ws = torch.cat(shown)
    moved = (ws != ws[:1]).flatten(0, 0).any(0)
    assert moved.any(1).nonzero().flatten().tolist() == [1, 2]
    np.testing.assert_allclose((ws[:, 1, 0] - net.w_mean[0]), np.linspace(-4, 4, 7), atol=1e-5)
    # the layers that stay have the latent itself, in every coordinate
    assert (ws[0, 0, 1:] == ws[0, 1, 1:]).all()
    assert result.value > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 1}, "steps=1"),
        ({"samples": 0}, "samples=0"),
        ({"extent": 0.0}, "extent=0.0"),
        ({"directions": Directions(np.eye(3), method="x")}, "latent of 3"),
        ({"distance": "nearness"}, "choose one of"),
    ],
)
def test_what_cannot_be_walked_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        traversal_length(Linear(), **{**PIXEL, **options})
