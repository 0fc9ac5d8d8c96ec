"""EigenGAN: the published layer lists, whose latent does what, and the tools on its subspaces."""

from __future__ import annotations

import copy
import io
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from orthogan import gradients, native_directions, weights
from orthogan.errors import UserError
from orthogan.latent import traverse
from orthogan.models.families.eigengan import EigenGANDiscriminator, EigenGANGenerator


def generator(
    size: int = 32, *, channels: int = 4, dims: int = 2, noise: int = 5, injection: str = "both"
) -> EigenGANGenerator:
    torch.manual_seed(0)
    latent_dim = (size.bit_length() - 3) * dims + noise
    return EigenGANGenerator(
        resolution=size,
        image_channels=3,
        channels=channels,
        latent_dim=latent_dim,
        dims=dims,
        injection=injection,
    )


def discriminator(size: int = 32, *, channels: int = 4) -> EigenGANDiscriminator:
    torch.manual_seed(0)
    return EigenGANDiscriminator(resolution=size, image_channels=3, channels=channels)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("injection", ["both", "single"])
@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_shapes(size: int, injection: str) -> None:
    net = generator(size, channels=2, injection=injection)
    z = net.sample_latent(2, seed=3)
    images = net(z)
    assert images.shape == (2, 3, size, size)
    assert float(images.detach().abs().max()) <= 1
    assert discriminator(size, channels=2)(images).shape == (2,)
    assert len(net.subspaces()) == {32: 3, 64: 4, 128: 5, 256: 6}[size]


@pytest.mark.parametrize(
    ("size", "ours", "theirs", "millions"),
    [
        (256, 22_994_951, 13_635_601, ("22.99", "13.64")),
        (128, 10_262_529, 8_915_985, ("10.26", "8.92")),
    ],
)
def test_the_published_widths_have_the_ports_parameters(
    size: int, ours: int, theirs: int, millions: tuple[str, str]
) -> None:
    # counts measured on the port itself, to two decimals
    widths = [512, 512, 256, 128, 64, 32, 16] if size == 256 else [512, 256, 128, 64, 32, 16]
    up = discriminating = 0
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        area = (4 << i) ** 2
        up += 7 * a * area + 6 + (a * a + a) + 2 * (a * b * 9 + b) + (b * b * 9 + b)
        discriminating += (b * b * 9 + b) + (b * a * 9 + a)
    up += 512 * 512 * 16 + 512 * 16 + (16 * 3 * 49 + 3)
    discriminating += (3 * 16 * 49 + 16) + (512 * 512 * 9 + 512) + (8192 * 512 + 512) + 513
    assert (up, discriminating) == (ours, theirs)
    assert (f"{up / 1e6:.2f}", f"{discriminating / 1e6:.2f}") == millions
    with torch.device("meta"):
        g = generator(size, channels=16, dims=6, noise=512)
        assert count(g) == up
        assert count(discriminator(size, channels=16)) == discriminating
    lengths = [8192, 32768, 65536, 131072, 262144, 524288] if size == 256 else [8192, 16384, 32768, 65536, 131072]
    assert [tuple(s.U.shape) for _, s in g.subspaces()] == [(6, length) for length in lengths]


def test_widths_stop_at_512_but_never_below_what_is_asked_for() -> None:
    with torch.device("meta"):
        nets = [generator(64, channels=channels) for channels in (16, 64, 600)]
    widths = [[block.inject.in_channels for block in net.blocks] + [net.conv.in_channels] for net in nets]
    assert widths == [[256, 128, 64, 32, 16], [512, 512, 256, 128, 64], [600] * 5]


@pytest.mark.parametrize("injection", ["both", "single"])
def test_the_generator_is_the_published_formula(injection: str) -> None:
    net = generator(injection=injection).double()
    z = net.sample_latent(2, seed=0).double()
    h = functional.linear(z[:, 6:], net.linear.weight, net.linear.bias).view(2, -1, 4, 4)
    for i, block in enumerate(net.blocks):
        s, part = block.subspace, z[:, 2 * i : 2 * i + 2]
        phi = (s.mu + part[:, :1] * s.L[0] * s.U[0] + part[:, 1:] * s.L[1] * s.U[1]).view_as(h)
        w = dict(block.named_parameters())
        # a 1x1 deconvolution is a matrix (in, out) at every pixel
        h = h + torch.einsum("nchw,cd->ndhw", phi, w["inject.weight"][:, :, 0, 0]) + w["inject.bias"].view(-1, 1, 1)
        doubled = functional.leaky_relu(h, 0.2)
        h = functional.conv_transpose2d(doubled, w["up.weight"], w["up.bias"], 2, 1, 1)
        if injection == "both":
            h = h + functional.conv_transpose2d(phi, w["inject_up.weight"], w["inject_up.bias"], 2, 1, 1)
        h = functional.conv_transpose2d(functional.leaky_relu(h, 0.2), w["conv.weight"], w["conv.bias"], 1, 1)
    expected = net.conv(functional.leaky_relu(h, 0.2)).tanh()
    torch.testing.assert_close(net(z), expected)


@pytest.mark.parametrize("injection", ["both", "single"])
@pytest.mark.parametrize("size", [32, 256])
def test_every_dimension_and_the_noise_change_the_image_at_the_start(size: int, injection: str) -> None:
    net = generator(size, injection=injection)
    sizes = effects(net)
    assert sizes.shape == (net.latent_dim,)
    # root mean squares over pixels in [-1, 1], for a step of 1; a level of an 8-bit image is 0.008
    assert float(sizes.min()) > 1e-3
    assert float(sizes.max() / sizes.min()) < 100


def test_a_subspace_of_no_importance_changes_nothing_and_the_others_still_do() -> None:
    net = generator().double()
    _, middle = net.subspaces()[1]
    middle.L.data.zero_()
    sizes = effects(net)
    assert float(sizes[2:4].max()) < 1e-12
    assert float(torch.cat([sizes[:2], sizes[4:]]).min()) > 1e-3


@torch.no_grad()
def effects(net: EigenGANGenerator) -> Tensor:
    """How much a step of 1 along each latent axis changes an image (latent_dim,)."""
    z = net.sample_latent(1, seed=0).to(net.linear.weight)
    moved = net(z + torch.eye(net.latent_dim, dtype=z.dtype)) - net(z)
    return moved.square().mean((1, 2, 3)).sqrt()


def test_the_initialisation_is_he_for_leaky_relu_by_the_stored_fan_in() -> None:
    net = generator(channels=32)
    for layer, fan in (
        (net.linear, 5),
        (net.blocks[0].inject, 256),
        (net.blocks[0].up, 128 * 9),
        (net.blocks[0].conv, 128 * 9),
        (net.conv, 32 * 49),
        (discriminator(channels=32).convs[3], 64 * 9),
    ):
        assert float(layer.weight.detach().std()) == pytest.approx((2 / 1.04 / fan) ** 0.5, rel=0.05)
        assert float(layer.bias.detach().abs().max()) == 0


def test_native_directions_are_the_axes_of_the_subspaces_by_layer_and_importance() -> None:
    net = generator(dims=3)
    for (_, subspace), values in zip(net.subspaces(), [(1, 3, 2), (-9, 0, 4), (5, 5, -6)], strict=True):
        subspace.L.data.copy_(Tensor(values))
    rows = net.native_directions()
    assert rows.shape == (9, net.latent_dim)
    assert rows.argmax(1).tolist() == [1, 2, 0, 3, 5, 4, 8, 6, 7]
    assert torch.equal(rows.sum(1), torch.ones(9))
    found = native_directions(net)
    assert found.method == "native"
    assert len(set(found.names)) == len(found)
    for name, row, size in zip(found.names, found.matrix, found.scores["|L|"], strict=True):
        layer, dim = (int(number) - 1 for number in name.removeprefix("z").split("."))
        assert row[layer * net.dims + dim] == 1
        assert size == pytest.approx(abs(float(net.subspaces()[layer][1].L[dim])))
    assert torch.equal(torch.from_numpy(found.matrix.copy()), rows)
    # row 4 is the axis of importance 4, row 5 that of importance 0
    frames = traverse(net, found, dims=[4, 5], steps=3).frames
    assert (frames[0, 0] != frames[0, -1]).any()
    assert (frames[1] == frames[1, 0]).all()


def test_the_report_has_the_error_and_importances_of_every_subspace() -> None:
    net = generator(dims=3)
    name, subspace = net.subspaces()[2]
    subspace.U.data.mul_(2)  # U U^T = 4 I
    subspace.L.data[1] = -7
    report = net.subspace_report()
    assert list(report) == [name for name, _ in net.subspaces()] == [f"blocks.{i}.subspace" for i in range(3)]
    assert report[name] == pytest.approx({"orthogonality_error": 27**0.5, "L0": 9.0, "L1": -7.0, "L2": 3.0}, rel=1e-5)
    assert all(report[other]["orthogonality_error"] < 1e-5 for other in list(report)[:2])
    assert all(net.get_submodule(name) is subspace for name, subspace in net.subspaces())


def test_hard_orthogonal_bases_stay_so_while_free_ones_drift() -> None:
    hard, free = generator(), generator()
    for _, subspace in hard.subspaces():
        weights.orthogonal(subspace, "U")
    z = free.sample_latent(4, seed=0)
    torch.testing.assert_close(hard(z), free(z), atol=1e-4, rtol=0)
    for net in (hard, free):
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            net(z).square().sum().backward()
            optimizer.step()
    errors = [[r["orthogonality_error"] for r in net.subspace_report().values()] for net in (hard, free)]
    assert max(errors[0]) < 1e-5
    assert min(errors[1]) > 0.05
    assert len(native_directions(hard)) == 6


def test_gradient_rules_take_the_bases_by_name() -> None:
    net = generator()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    gradients.NearestOrthogonalGradient(optimizer, [(f"{name}.U", s.U) for name, s in net.subspaces()])
    before = [s.U.detach().clone() for _, s in net.subspaces()]
    net(net.sample_latent(4, seed=0)).square().sum().backward()
    optimizer.step()
    for old, (_, subspace) in zip(before, net.subspaces(), strict=True):
        step = old - subspace.U.detach()
        torch.testing.assert_close(step @ step.T, torch.eye(2), atol=1e-4, rtol=0)


def test_the_discriminator_is_the_published_list() -> None:
    net = discriminator(64, channels=8)
    described = [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0]) for c in net.convs]
    expected = [(3, 8, 7, 1)]
    for a in (8, 16, 32, 64):
        expected += [(a, a, 3, 1), (a, 2 * a, 3, 2)]
    assert described == [*expected, (128, 128, 3, 1)]
    x = torch.randn(2, 3, 64, 64)
    h = x
    for conv in net.convs:
        h = functional.leaky_relu(conv(h), 0.2)
    assert h.shape == (2, 128, 4, 4)
    hidden = functional.leaky_relu(net.hidden(h.flatten(1)), 0.2)
    assert hidden.shape == (2, 128)
    torch.testing.assert_close(net(x), net.linear(hidden).squeeze(1))
    torch.testing.assert_close(net(x)[1:], net(x[1:]), rtol=1e-4, atol=1e-6)


def test_double_backward_reaches_every_weight_of_the_discriminator() -> None:
    net = discriminator()
    x = torch.randn(2, 3, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    gradient.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None and p.dim() > 1] == []
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_an_image_depends_on_its_own_latent_alone_and_gradients_add() -> None:
    net, both = generator().double(), generator().double()
    z = net.sample_latent(3, seed=0).double()
    torch.testing.assert_close(net(z)[1:2], net(z[1:2]))
    (net(z[:1]).pow(3).sum() + net(z[1:]).pow(3).sum()).backward()
    both(z).pow(3).sum().backward()
    for one, other in zip(net.parameters(), both.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_deepcopy_and_state_dict_carry_the_same_function() -> None:
    net, z = generator(), generator().sample_latent(2, seed=1)
    torch.manual_seed(9)
    other = EigenGANGenerator(resolution=32, image_channels=3, channels=4, latent_dim=11, dims=2)
    assert not torch.allclose(other(z), net(z))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(z), net(z))
    assert torch.equal(copy.deepcopy(net)(z), net(z))


def test_autocast_gives_nearly_the_same_images() -> None:
    net, judge = generator(), discriminator()
    z = net.sample_latent(2, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = net(z)
        logits = judge(images)
    assert images.dtype == torch.bfloat16
    torch.testing.assert_close(images.float(), net(z), atol=0.05, rtol=0.05)
    torch.testing.assert_close(logits.float(), judge(net(z)), atol=0.05, rtol=0.05)


def test_channels_last_is_the_same_function() -> None:
    net = generator()
    twin = copy.deepcopy(net).to(memory_format=torch.channels_last)
    z = net.sample_latent(2, seed=1)
    torch.testing.assert_close(twin(z), net(z), rtol=1e-3, atol=1e-5)


def test_it_compiles_into_one_graph() -> None:
    net, judge = generator(), discriminator()
    z = net.sample_latent(2, seed=1)
    compiled = [torch.compile(n, fullgraph=True, backend="aot_eager") for n in (net, judge)]
    torch.testing.assert_close(compiled[1](compiled[0](z)), judge(net(z)))


def test_what_it_cannot_be_is_refused() -> None:
    shared: dict[str, Any] = {"image_channels": 3, "channels": 4}
    cases: list[tuple[Any, dict[str, Any]]] = [(EigenGANGenerator, {"latent_dim": 40}), (EigenGANDiscriminator, {})]
    for make, extra in cases:
        for size in (16, 40, 48, 512):
            with pytest.raises(UserError, match=rf"data\.resolution is {size}.*32, 64, 128, 256"):
                make(resolution=size, **shared, **extra)
        with pytest.raises(UserError, match=r"data\.labels.*unconditional.*10 classes"):
            make(resolution=32, num_classes=10, **shared, **extra)
    with pytest.raises(ValueError, match=r"latent_dim is 18.*at least 19"):
        EigenGANGenerator(resolution=32, latent_dim=18, **shared)
    with pytest.raises(ValueError, match="injection is 'none': choose both or single"):
        generator(injection="none")
    with pytest.raises(ValueError, match="dims is 0"):
        generator(dims=0)
    for net, x in ((generator(), torch.zeros(1, 11)), (discriminator(), torch.zeros(1, 3, 32, 32))):
        with pytest.raises((UserError, ValueError), match="takes no labels"):
            net(x, torch.zeros(1, dtype=torch.long))
