"""The nets: shapes at every size, the authors' layer lists, and what a discriminator may not do."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan import weights
from orthogan.errors import UserError
from orthogan.models.families.resnet_blocks import DownBlock, UpBlock
from orthogan.models.families.sngan import SNGANDiscriminator, SNGANGenerator
from orthogan.models.families.wgan_gp import WGANGPDiscriminator
from orthogan.models.protocol import DISCRIMINATORS, GENERATORS, Discriminator, Generator

SIZES = {"sngan": (32, 48, 64, 128), "dcgan": (32, 48, 64, 128), "wgan-gp": (32, 64, 128), "r3gan": (16, 32, 64)}
LATENTS = {"eigengan": 40, "biggan": 8}  # subspaces take 18 of them at 32 px; four parts of equal size
UNCONDITIONAL = ("dcgan-tutorial", "eigengan", "infogan", "simple-gan", "stylegan2-lucidrains")
WIDTHS = {"stylegan3": 1}
SEE_OTHERS = ("stylegan2", "stylegan2-official", "dcgan-tutorial", "pgan")  # by minibatch deviation or batch norm
CONDITIONAL = [kind for kind in GENERATORS if kind not in UNCONDITIONAL]
CASES = [(kind, size) for kind, sizes in SIZES.items() for size in sizes]


def pair(kind: str, size: int = 32, *, colours: int = 3, classes: int = 0) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    shared = {"resolution": size, "image_channels": colours, "num_classes": classes, "channels": WIDTHS.get(kind, 8)}
    return GENERATORS.get(kind)(latent_dim=LATENTS.get(kind, 6), **shared), DISCRIMINATORS.get(kind)(**shared)


@pytest.mark.parametrize(("kind", "size"), CASES)
@pytest.mark.parametrize(("colours", "classes"), [(3, 0), (1, 4)])
def test_shapes(kind: str, size: int, colours: int, classes: int) -> None:
    generator, discriminator = pair(kind, size, colours=colours, classes=classes)
    z = generator.sample_latent(2, seed=3)
    y = torch.tensor([0, 3]) if classes else None
    images = generator(z, y)
    assert images.shape == (2, colours, size, size)
    assert discriminator(images, y).shape == (2,)
    if kind != "r3gan":
        assert float(images.abs().max()) <= 1
    assert torch.equal(z, generator.sample_latent(2, seed=3))
    first = generator.first_layer()
    assert isinstance(first, nn.Linear)
    assert first.in_features == 6


@pytest.mark.parametrize("kind", GENERATORS)
def test_other_sizes_are_refused_with_those_there_are(kind: str) -> None:
    for make, extra in ((GENERATORS.get(kind), {"latent_dim": LATENTS.get(kind, 6)}), (DISCRIMINATORS.get(kind), {})):
        wrong, said = (42, "4") if kind in ("dcgan", "stylegan2") else (40, "32")
        with pytest.raises(UserError, match=rf"data\.resolution is {wrong}.*{said}"):
            make(resolution=wrong, image_channels=3, channels=8, **extra)


def test_sngan_at_32_px_has_the_authors_parameters() -> None:
    # Chainer: b1 linear 128 -> 4*4*256; three blocks of two 3x3 and one 1x1 convolutions, two batch norms; last
    # batch norm; 3x3 to RGB
    block = 2 * (256 * 256 * 9 + 256) + (256 * 256 + 256) + 2 * 2 * 256
    expected = (128 * 4096 + 4096) + 3 * block + 2 * 256 + (256 * 3 * 9 + 3)
    generator = SNGANGenerator(resolution=32, image_channels=3, channels=256, latent_dim=128)
    assert sum(p.numel() for p in generator.parameters()) == expected
    # D: optimised block, a halving block with a 1x1 shortcut, two with the identity; linear without bias
    conv = 128 * 128 * 9 + 128
    expected = (3 * 128 * 9 + 128) + conv + (3 * 128 + 128) + (2 * conv + 128 * 128 + 128) + 2 * (2 * conv) + 128
    discriminator = SNGANDiscriminator(resolution=32, image_channels=3, channels=128)
    assert sum(p.numel() for p in discriminator.parameters()) == expected
    assert discriminator.linear.bias is None
    conditional = SNGANDiscriminator(resolution=32, image_channels=3, channels=128, num_classes=10)
    assert sum(p.numel() for p in conditional.parameters()) == expected + 10 * 128


def test_sngan_widths_at_64_px() -> None:
    generator = SNGANGenerator(resolution=64, image_channels=3, channels=64, latent_dim=128)
    discriminator = SNGANDiscriminator(resolution=64, image_channels=3, channels=64)
    assert generator.linear.out_features == 4 * 4 * 1024
    assert [b.conv2.out_channels for b in generator.blocks] == [512, 256, 128, 64]
    assert [b.conv2.out_channels for b in discriminator.blocks] == [64, 128, 256, 512, 1024]
    assert discriminator.linear.bias is not None


def test_glorot_gains() -> None:
    net = SNGANDiscriminator(resolution=32, image_channels=3, channels=64)
    block = net.blocks[1]
    for layer, gain in ((block.conv1, math.sqrt(2)), (block.conv2, math.sqrt(2)), (block.shortcut, 1.0)):
        fan = (layer.in_channels + layer.out_channels) * layer.kernel_size[0] ** 2
        assert float(layer.weight.std()) == pytest.approx(gain * math.sqrt(2 / fan), rel=0.05)
        assert float(layer.bias.abs().max()) == 0


def test_the_first_block_has_no_leading_activation_and_hidden_widths_are_the_authors() -> None:
    net = SNGANDiscriminator(resolution=64, image_channels=3, channels=8)
    first, second = net.blocks[0], net.blocks[1]
    assert first.first
    assert (first.conv1.out_channels, second.conv1.out_channels) == (8, 8)
    assert (second.conv2.in_channels, second.conv2.out_channels) == (8, 16)


def test_cheaper_orders_of_the_shortcuts_change_nothing() -> None:
    torch.manual_seed(0)
    up = UpBlock(4, 6, 0).double().eval()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    h = up.conv1(functional.interpolate(up.norm1(x, None), scale_factor=2))
    naive = up.conv2(up.norm2(h, None)) + up.shortcut(functional.interpolate(x, scale_factor=2))
    torch.testing.assert_close(up(x, None), naive)
    down = DownBlock(4, 6, down=True).double()
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    h = down.conv2(functional.relu(down.conv1(functional.relu(x))))
    naive = functional.avg_pool2d(h, 2) + functional.avg_pool2d(down.shortcut(x), 2)
    torch.testing.assert_close(down(x), naive)


def test_sngan_sums_and_wgan_gp_averages_the_last_map() -> None:
    for make, factor in ((SNGANDiscriminator, 64.0), (WGANGPDiscriminator, 1.0)):
        net = make(resolution=32, image_channels=3, channels=8)
        x = torch.randn(2, 3, 32, 32)
        features = functional.relu(net.blocks(x)).mean((2, 3)) * factor
        torch.testing.assert_close(net(x), net.linear(features).squeeze(1))


@pytest.mark.parametrize("kind", [k for k in DISCRIMINATORS if k not in SEE_OTHERS])
def test_no_image_sees_another(kind: str) -> None:
    _, net = pair(kind)
    _wake(net)
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_double_backward_reaches_every_weight(kind: str) -> None:
    _, net = pair(kind)
    _wake(net)
    weights.apply(net, "stable_rank", c=0.5)
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None and p.dim() > 1]
    assert silent == []
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", GENERATORS)
def test_channels_last_is_the_same_function(kind: str) -> None:
    generator, discriminator = pair(kind)
    _wake(discriminator)
    twins = copy.deepcopy(generator), copy.deepcopy(discriminator)
    for net in twins:
        net.to(memory_format=torch.channels_last)
    z = generator.sample_latent(3, seed=0)
    x = generator(z)
    torch.testing.assert_close(twins[0](z), x, rtol=1e-3, atol=1e-4)
    y = discriminator(x.detach())
    torch.testing.assert_close(
        twins[1](x.detach().contiguous(memory_format=torch.channels_last)), y, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("kind", GENERATORS)
def test_deepcopy_and_state_dict(kind: str) -> None:
    classes = 3 if kind in CONDITIONAL else 0
    generator, _ = pair(kind, classes=classes)
    clone = copy.deepcopy(generator)
    other, _ = pair(kind, classes=classes)
    other.load_state_dict(generator.state_dict())
    z, y = generator.sample_latent(2, seed=1), torch.tensor([0, 2]) if classes else None
    for net in (clone, other):
        assert torch.equal(net.eval()(z, y), generator.eval()(z, y))


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_a_class_changes_the_image_after_training_its_embedding(kind: str) -> None:
    generator, discriminator = pair(kind, classes=3)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if "gain" in name or "embedding" in name:
                parameter.add_(torch.randn_like(parameter))
    z = generator.sample_latent(1, seed=1).expand(2, -1)
    images = generator.eval()(z, torch.tensor([0, 1]))
    assert not torch.allclose(images[0], images[1])
    _wake(discriminator)
    logits = discriminator(images[:1].expand(2, -1, -1, -1), torch.tensor([0, 1]))
    assert not torch.equal(logits[0], logits[1])


def test_a_conditional_discriminator_without_labels_says_so() -> None:
    for kind in CONDITIONAL:
        _, net = pair(kind, classes=3)
        with pytest.raises(UserError, match="conditional"):
            net(torch.randn(2, 3, 32, 32))


def _wake(net: nn.Module) -> None:
    """r3gan's residual branches start at zero; give them something to do."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("conv3.weight"):
                parameter.add_(0.05 * torch.randn_like(parameter))


def test_to_uint8_rounds_and_clips() -> None:
    from orthogan.drawing.grid import to_uint8

    values = Tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0])
    assert to_uint8(values).tolist() == [0, 0, 128, 255, 255, 255]
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(levels.float() / 127.5 - 1), levels)
