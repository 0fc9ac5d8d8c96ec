"""The progressive GAN: the sizes of the paper, its gains, the share of the smaller image, and the groups of D."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from orthogan.models import PGANDiscriminator, PGANGenerator
from orthogan.weights.effective import effective_weight


def test_the_networks_of_1024_px_have_the_sizes_of_table_2() -> None:
    with torch.device("meta"):
        generator = PGANGenerator(resolution=1024, image_channels=3, channels=16, latent_dim=512)
        discriminator = PGANDiscriminator(resolution=1024, image_channels=3, channels=16)
    widths = [512, 512, 512, 512, 256, 128, 64, 32, 16]
    assert [conv.out_channels for conv in list(generator.convs)[::2]] == widths
    assert [conv.in_channels for conv in list(discriminator.convs)[::2]] == widths[:0:-1]
    for net in (generator, discriminator):
        assert round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 1) == 23.1


def test_weights_start_at_a_variance_of_1_and_are_applied_with_that_of_he() -> None:
    torch.manual_seed(0)
    net = PGANGenerator(resolution=8, image_channels=64, channels=64, latent_dim=32)
    for layer in (net.linear, net.image):
        assert float(layer.weight.detach().std()) == pytest.approx(1, rel=0.05)
        he = math.sqrt(2 / layer.weight[0].numel())
        assert float(effective_weight(layer).detach().std()) == pytest.approx(he, rel=0.05)


def test_alpha_is_the_share_of_the_smaller_image_and_of_the_smaller_input() -> None:
    torch.manual_seed(0)
    generator = PGANGenerator(resolution=16, image_channels=3, channels=4, latent_dim=6, alpha=1)
    images = generator(generator.sample_latent(2, seed=0))
    small = images[:, :, ::2, ::2]
    assert torch.equal(images, functional.interpolate(small, scale_factor=2))
    critic = PGANDiscriminator(resolution=16, image_channels=3, channels=4, alpha=1)
    noise = torch.randn(2, 3, 16, 16)
    noise = noise - functional.interpolate(functional.avg_pool2d(noise, 2), scale_factor=2)
    torch.testing.assert_close(critic(images + noise), critic(images))  # it sees only means of 2x2 pixels
    critic.alpha = 0.5
    assert not torch.allclose(critic(images + noise), critic(images), atol=1e-3)


def test_in_training_no_group_mixes_reals_and_fakes() -> None:
    torch.manual_seed(0)
    critic = PGANDiscriminator(resolution=8, image_channels=1, channels=4).train()
    real, fake = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8)
    both = critic(torch.cat([real, fake]))
    torch.testing.assert_close(both, torch.cat([critic(real), critic(fake)]))
    assert not torch.allclose(critic.eval()(torch.cat([real, fake])), both, atol=1e-3)


def test_arguments_that_do_not_fit_are_refused() -> None:
    sizes: dict[str, Any] = {"resolution": 16, "image_channels": 3, "channels": 4}
    with pytest.raises(ValueError, match=r"widths is \[8, 4\]: it must have 3 entries at 16 pixels"):
        PGANDiscriminator(**sizes, widths=[8, 4])
    with pytest.raises(ValueError, match=r"attributes is \[2, 3\]: their product .* classes, 5"):
        PGANGenerator(**sizes, latent_dim=6, num_classes=5, attributes=[2, 3])
