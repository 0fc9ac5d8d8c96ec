"""Activeness of a latent against its closed form and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from orthogan.disentanglement import activeness, activity
from orthogan.models.families.simple_gan import SimpleGANGenerator
from orthogan.weights import spectral_norm
from tests.fixtures.disc import Affine, Disc


def by_loop(net: nn.Module, samples: int, seed: int) -> np.ndarray:
    z = net.sample_latent(samples, seed=seed)
    result = []
    for dim in range(z.shape[1]):
        total = 0.0
        for i in range(samples):
            images = []
            for value in (-2.0, 0.0, 2.0):
                one = z[i : i + 1].clone()
                one[0, dim] = value
                y = torch.tensor([i % net.num_classes]) if net.num_classes else None
                images.append(net(one, y).detach().double())
            total += float(torch.cat(images).var(dim=0).mean())
        result.append(total / samples)
    return np.array(result)


def test_an_affine_generator_has_four_times_its_mean_squared_weights() -> None:
    net = Affine()
    found = activeness(net, samples=3)
    assert found.shape == (5,)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, 4 * net.fc.weight.detach().square().mean(0), rtol=1e-5)


@pytest.mark.parametrize("classes", [0, 3])
def test_batches_change_nothing_and_the_loop_agrees(classes: int) -> None:
    net = Disc(resolution=8, num_classes=classes)
    expected = by_loop(net, 5, seed=2)
    for size in (1, 7, 64, 1000):
        np.testing.assert_allclose(activeness(net, samples=5, seed=2, batch_size=size), expected, rtol=1e-4, atol=1e-9)
    assert (expected[:4] > 1e-4).all()
    assert activeness(net, samples=5)[5] == 0  # the last coordinate draws nothing


def test_other_values_are_taken() -> None:
    net = Affine()
    np.testing.assert_allclose(
        activeness(net, samples=2, values=(-1, 1)), 2 * net.fc.weight.detach().square().mean(0), rtol=1e-5
    )


def test_the_generator_is_left_as_it_was() -> None:
    class Net(Affine):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(5)

        def forward(self, z: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            return super().forward(self.norm(z))

    net = Net()
    spectral_norm(net.fc)
    net.train()
    net.fc.eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    torch.manual_seed(0)
    first = activeness(net, samples=4)
    assert torch.initial_seed() == 0
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
    np.testing.assert_array_equal(first, activeness(net, samples=4))
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert net.training
    assert not net.fc.training


def test_broken_images_and_wrong_sizes_are_refused() -> None:
    net = Affine()
    with torch.no_grad():
        net.fc.weight[0, 3] = float("inf")
    with pytest.raises(ValueError, match=r"NaN or infinite along dimensions \[0, 1, 2, 3, 4\]"):
        activeness(net, samples=2)
    for options in ({"values": (1.0,)}, {"samples": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="at least 2, 1 and 1"):
            activeness(net, **options)


def test_the_memory_format_of_colour_images_changes_nothing() -> None:
    torch.manual_seed(0)
    net = SimpleGANGenerator(resolution=32, image_channels=3, channels=2, latent_dim=4)
    plain = activeness(net, samples=3)
    directions = activity(net, samples=3)
    net.to(memory_format=torch.channels_last)
    assert net(torch.zeros(2, 4)).is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(activeness(net, samples=3), plain, rtol=1e-4)
    assert float(activity(net, samples=3)) == pytest.approx(float(directions), rel=1e-4)
