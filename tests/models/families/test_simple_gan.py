"""The vanilla GAN of the NOG paper: layer lists, parameter counts, and the first layer as the tools see it."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan import first_layer_directions, gradients
from orthogan.errors import UserError
from orthogan.models.families.simple_gan import SimpleGANDiscriminator, SimpleGANGenerator

SIZES = [32, 64, 128]


def pair(size: int = 32, channels: int = 4, latent_dim: int = 6) -> tuple[SimpleGANGenerator, SimpleGANDiscriminator]:
    torch.manual_seed(0)
    return (
        SimpleGANGenerator(resolution=size, image_channels=3, channels=channels, latent_dim=latent_dim),
        SimpleGANDiscriminator(resolution=size, image_channels=3, channels=channels),
    )


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("size", SIZES)
def test_shapes(size: int) -> None:
    generator, discriminator = pair(size)
    images = generator(generator.sample_latent(2, seed=3))
    assert images.shape == (2, 3, size, size)
    assert float(images.detach().abs().max()) <= 1
    assert discriminator(images).shape == (2,)


def test_at_128_px_the_parameters_are_those_of_the_released_code() -> None:
    ups = 1024 * 1024 + 1024 * 512 + 512 * 256 + 256 * 128 + 128 * 64
    norms = 2 * (1024 + 512 + 256 + 128 + 64)
    expected_g = (30 * 1024 * 16 + 1024) + 16 * ups + norms + (64 * 3 * 9 + 3)
    downs = 64 * 128 + 128 * 256 + 256 * 512 + 512 * 1024
    norms = 2 * (128 + 256 + 512 + 1024)
    expected_d = (3 * 64 * 16 + 64) + 16 * downs + norms + (16384 * 1024 + 1024) + 1025
    assert (f"{expected_g / 1e6:.1f}", f"{expected_d / 1e6:.1f}") == ("28.4", "27.9")
    with torch.device("meta"):
        generator, discriminator = pair(128, channels=64, latent_dim=30)
    assert (count(generator), count(discriminator)) == (expected_g, expected_d)
    # the matrix that NOG makes orthogonal
    assert generator.first_layer().weight.flatten(1).shape == (30, 16384)


@pytest.mark.parametrize(
    ("size", "up", "down"),
    [
        (32, [256, 256, 128, 64], [64, 128, 256]),
        (64, [512, 256, 128, 64, 64], [64, 128, 256, 512]),
        (128, [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024]),
    ],
)
def test_widths(size: int, up: list[int], down: list[int]) -> None:
    with torch.device("meta"):
        generator, discriminator = pair(size, channels=64)
    assert [generator.first.out_channels, *(layer.out_channels for layer in generator.ups)] == up
    assert [layer.out_channels for layer in discriminator.convs] == down
    assert (discriminator.hidden.in_features, discriminator.hidden.out_features) == (16 * down[-1], down[-1])
    assert discriminator.hidden_relu == (size != 128)


@pytest.mark.parametrize("size", SIZES)
def test_both_nets_are_the_released_lists(size: int) -> None:
    generator, discriminator = pair(size)
    generator, discriminator = generator.double(), discriminator.double()
    for net in (generator, discriminator):
        for norm in net.norms:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    z = generator.sample_latent(2, seed=0).double()
    # a map of one pixel through a transposed 4x4 kernel is a linear map
    first = generator.first
    x = (z @ first.weight.flatten(1)).view(2, -1, 4, 4) + first.bias.view(-1, 1, 1)
    for up, norm in zip(generator.ups, generator.norms, strict=True):
        x = functional.conv_transpose2d(x, up.weight, None, 2, 1)
        x = functional.leaky_relu(normed(x, norm), 0.2)
    images = generator.conv(x).tanh()
    torch.testing.assert_close(generator(z), images)
    h = functional.relu(discriminator.convs[0](images))
    for conv, norm in zip(list(discriminator.convs)[1:], discriminator.norms, strict=True):
        assert conv.bias is None
        h = functional.relu(normed(conv(h), norm))
    h = discriminator.hidden(h.flatten(1))
    h = h if size == 128 else functional.relu(h)
    torch.testing.assert_close(discriminator(images), discriminator.linear(h).squeeze(1))


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), correction=0, keepdim=True)
    gain, bias = norm.weight.view(-1, 1, 1), norm.bias.view(-1, 1, 1)
    return (x - mean) / (var + 1e-6).sqrt() * gain + bias


def test_the_first_layer_gives_directions_and_takes_the_rule() -> None:
    generator, _ = pair()
    found = first_layer_directions(generator)
    assert found.layer == "first"
    weight = generator.first.weight.detach().flatten(1).clone()
    assert found.scores["sigma"] == pytest.approx(torch.linalg.svdvals(weight).tolist(), rel=1e-4)
    optimizer = torch.optim.SGD(generator.parameters(), lr=1.0)
    gradients.NearestOrthogonalGradient(optimizer, generator, layers="first")
    generator(generator.sample_latent(8, seed=0)).square().sum().backward()
    optimizer.step()
    step = weight - generator.first.weight.detach().flatten(1)
    torch.testing.assert_close(step @ step.T, torch.eye(6), atol=1e-4, rtol=0)


def test_every_latent_changes_the_image_and_no_image_sees_another() -> None:
    generator, discriminator = pair()
    z = generator.sample_latent(1, seed=0)
    images = generator(z + torch.eye(6))
    assert float((images - generator(z)).flatten(1).norm(dim=1).min().detach()) > 1e-2
    torch.testing.assert_close(generator(z + torch.eye(6)[2:3]), images[2:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(discriminator(images)[2:3], discriminator(images[2:3]), rtol=1e-4, atol=1e-5)


def test_double_backward_reaches_every_weight_of_the_discriminator() -> None:
    _, net = pair()
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None and p.dim() > 1] == []
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_instance_norm_of_half_precision_is_exact_up_to_the_rounding_of_its_output(dtype: torch.dtype) -> None:
    norm = pair(channels=3)[0].norms[-1]
    assert isinstance(norm, nn.InstanceNorm2d)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = (1000 + 10 * torch.randn(2, 3, 4, 4)).to(dtype)
    expected = normed(x.double(), copy.deepcopy(norm).double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = norm(x)
    assert inside.dtype == dtype
    torch.testing.assert_close(inside.double(), expected, atol=0.02, rtol=0.01)
    assert torch.equal(norm(x), inside)
    assert copy.deepcopy(norm).to(dtype)(x).dtype == dtype
    # a constant map has no spread to divide by
    assert torch.isfinite(norm(torch.zeros(1, 3, 4, 4, dtype=dtype))).all()


def test_autocast_gives_nearly_the_same() -> None:
    generator, discriminator = pair()
    z = generator.sample_latent(2, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = generator(z)
        logits = discriminator(generator(z))
    torch.testing.assert_close(images.float(), generator(z), atol=0.05, rtol=0.05)
    torch.testing.assert_close(logits.float(), discriminator(generator(z)), atol=0.05, rtol=0.05)


def test_deepcopy_and_state_dict_carry_the_same_functions() -> None:
    for net, x in zip(pair(), (torch.randn(2, 6), torch.randn(2, 3, 32, 32)), strict=True):
        torch.manual_seed(9)
        other = copy.deepcopy(net)
        for parameter in other.parameters():
            nn.init.normal_(parameter, std=0.1)
        assert not torch.allclose(other(x), net(x))
        file = io.BytesIO()
        torch.save(net.state_dict(), file)
        file.seek(0)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(other(x), net(x))


def test_they_compile_into_one_graph_and_gradients_of_two_forwards_add() -> None:
    generator, discriminator = pair()
    twins = [
        torch.compile(copy.deepcopy(net), fullgraph=True, backend="aot_eager") for net in (generator, discriminator)
    ]
    z = generator.sample_latent(2, seed=1)
    torch.testing.assert_close(twins[1](twins[0](z)), discriminator(generator(z)), rtol=1e-4, atol=1e-5)
    (generator(z[:1]).pow(3).sum() + generator(z[1:]).pow(3).sum()).backward()
    apart = generator.first.weight.grad
    generator.zero_grad()
    generator(z).pow(3).sum().backward()
    torch.testing.assert_close(generator.first.weight.grad, apart, rtol=1e-3, atol=1e-4)


def test_what_they_cannot_be_is_refused() -> None:
    shared: dict[str, Any] = {"image_channels": 3, "channels": 4}
    for make, extra in ((SimpleGANGenerator, {"latent_dim": 6}), (SimpleGANDiscriminator, {})):
        for size in (16, 48, 256):
            with pytest.raises(UserError, match=rf"data\.resolution is {size}.*32, 64, 128"):
                make(resolution=size, **shared, **extra)
        with pytest.raises(UserError, match=r"data\.labels.*unconditional.*10 classes"):
            make(resolution=32, num_classes=10, **shared, **extra)
    for net, x in zip(pair(), (torch.zeros(1, 6), torch.zeros(1, 3, 32, 32)), strict=True):
        with pytest.raises((UserError, ValueError), match="takes no labels"):
            net(x, torch.zeros(1, dtype=torch.long))
