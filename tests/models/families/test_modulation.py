"""The layers of a style-based GAN against loops over samples, explicit convolutions and statistics."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.signal import convolve2d
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from orthogan import weights
from orthogan.layers import skew_orthogonal
from orthogan.models.families import modulation
from orthogan.models.families.modulation import EqualConv2d, EqualLinear, ModulatedConv2d, StyledConv
from orthogan.weights.effective import effective_weight

TAPS = Tensor([1, 3, 3, 1]).double()
FIR = torch.outer(TAPS, TAPS) / 64
FROZEN = [-0.6966724991798401, -1.5779690742492676, 0.12799881398677826, -0.8900256156921387]


def naive(x: Tensor, weight: Tensor, style: Tensor, demodulate: bool, up: bool) -> Tensor:
    """A weight a sample, as the paper writes it; doubling: zeros between the pixels, the kernel, the FIR."""
    images = []
    for image, s in zip(x, style, strict=True):
        w = weight * s[None, :, None, None]
        if demodulate:
            w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        k = weight.shape[-1]
        if not up:
            images.append(functional.conv2d(image[None], w, padding=k // 2)[0])
            continue
        n, h, width = image.shape
        stuffed = torch.zeros(n, 2 * h - 1, 2 * width - 1, dtype=x.dtype)
        stuffed[:, ::2, ::2] = image
        full = functional.conv2d(functional.pad(stuffed, [k - 1] * 4)[None], w.flip(2, 3))  # (2h+1)
        padded = functional.pad(full, (1, 1, 1, 1))[0][:, None]
        images.append(functional.conv2d(padded, 4 * FIR[None, None].flip(2, 3))[:, 0])
    return torch.stack(images)


def tensors(n: int, a: int, b: int, k: int, h: int, w: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    shapes = (n, a, h, w), (b, a, k, k), (n, a)
    return tuple(torch.randn(shape, dtype=torch.float64).requires_grad_(True) for shape in shapes)


sides = st.integers(1, 5)


@given(sides, sides, sides, st.sampled_from([1, 3]), sides, sides, st.booleans(), st.booleans(), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_the_modulated_convolution_is_the_naive_one_with_its_gradients(
    n: int, a: int, b: int, k: int, h: int, w: int, demodulate: bool, up: bool, seed: int
) -> None:
    k = 3 if up else k
    inputs = tensors(n, a, b, k, h, w, seed)
    got = modulation.modulated_conv2d(*inputs, demodulate=demodulate, up=up)
    want = naive(*inputs, demodulate, up)
    assert got.shape == (n, b, 2 * h if up else h, 2 * w if up else w)
    torch.testing.assert_close(got, want)
    probe = torch.randn_like(want)
    gradients = [torch.autograd.grad((out * probe).sum(), inputs) for out in (got, want)]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("up", [False, True])
def test_gradients_of_both_orders(up: bool) -> None:
    inputs = tensors(2, 2, 3, 3, 2, 3, 0)
    assert torch.autograd.gradcheck(lambda *t: modulation.modulated_conv2d(*t, up=up), inputs)
    assert torch.autograd.gradgradcheck(lambda *t: modulation.modulated_conv2d(*t, up=up), inputs)


def test_zero_weights_and_styles_give_zeros_and_finite_gradients() -> None:
    x, weight, style = tensors(2, 3, 2, 3, 4, 4, 0)
    for w, s in ((weight.detach() * 0, style.detach()), (weight.detach(), style.detach() * 0)):
        w, s = w.float().requires_grad_(True), s.float().requires_grad_(True)
        out = modulation.modulated_conv2d(x.detach().float(), w, s)
        assert float(out.detach().abs().max()) == 0
        assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.square().sum() + out.sum(), (w, s)))


def test_the_size_of_the_style_does_not_count_with_demodulation_and_does_without() -> None:
    x, weight, style = tensors(2, 3, 2, 3, 4, 4, 0)
    for demodulate, factor in ((True, 1.0), (False, 7.0)):
        one, many = (modulation.modulated_conv2d(x, weight, s, demodulate=demodulate) for s in (style, 7 * style))
        torch.testing.assert_close(many, factor * one)


def test_demodulated_outputs_start_with_variance_one_whatever_the_style() -> None:
    torch.manual_seed(0)
    layer = ModulatedConv2d(32, 48, 3, 16)
    w = 5 * torch.randn(8, 16)
    x = torch.randn(8, 32, 32, 32)
    inner = layer(x, w)[:, :, 1:-1, 1:-1].detach()
    torch.testing.assert_close(inner.var((2, 3)), torch.ones(8, 48), atol=0.25, rtol=0)
    assert float(inner.var()) == pytest.approx(1, abs=0.03)
    # doubled, noise keeps 16 * |FIR|^2 / 4 of it, a smooth map nearly all
    doubled = ModulatedConv2d(32, 48, 3, 16, up=True)
    share = 4 * float(FIR.square().sum())
    assert share == pytest.approx(0.390625)
    assert float(doubled(x, w)[:, :, 2:-2, 2:-2].detach().var()) == pytest.approx(share, abs=0.03)
    # a constant map per image becomes a constant of the same mean square, over the random weights
    flat = doubled(torch.randn(8, 32, 1, 1).expand(-1, -1, 6, 6), w)[:, :, 4:8, 4:8].detach()
    assert float(flat.var((2, 3)).max()) < 1e-10
    once = layer(torch.randn(8, 32, 1, 1).expand(-1, -1, 6, 6), w)[:, :, 2:4, 2:4].detach()
    assert float(flat.square().mean()) == pytest.approx(float(once.square().mean()), rel=0.25)


def test_equalised_layers_are_plain_ones_times_their_gain() -> None:
    torch.manual_seed(0)
    linear = EqualLinear(300, 200, bias=0.5, lr_mul=0.01)
    x = torch.randn(4, 300)
    want = x @ linear.weight.T * 0.01 / math.sqrt(300) + 0.01 * linear.bias
    torch.testing.assert_close(linear(x), want, rtol=1e-4, atol=1e-5)
    assert float(linear.weight.detach().std()) == pytest.approx(100, rel=0.02)
    torch.testing.assert_close((0.01 * linear.bias).detach(), torch.full((200,), 0.5))
    conv = EqualConv2d(20, 30, 3)
    assert float(conv.weight.detach().std()) == pytest.approx(1, rel=0.02)
    x = torch.randn(2, 20, 5, 5)
    torch.testing.assert_close(conv(x), functional.conv2d(x, conv.weight / math.sqrt(180), conv.bias, padding=1))
    # outputs of variance 1 at the start, and an output bias is where it was asked for
    assert float(EqualLinear(300, 2000)(torch.randn(50, 300)).detach().var()) == pytest.approx(1, rel=0.05)


def test_a_step_of_adam_moves_an_equalised_map_by_the_rate_times_its_gain() -> None:
    # the first step of Adam is lr * sign(gradient), so the effective weight moves by lr * gain
    for layer, gain in ((EqualLinear(16, 4), 0.25), (EqualLinear(16, 4, lr_mul=0.1), 0.025)):
        before = effective_weight(layer).detach().clone()
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01, eps=1e-20)
        layer(torch.randn(3, 16)).pow(3).sum().backward()
        optimizer.step()
        moved = (effective_weight(layer).detach() - before).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.01 * gain), rtol=1e-2, atol=1e-6)


def test_not_equalised_is_a_plain_layer_of_the_same_size_at_the_start() -> None:
    torch.manual_seed(0)
    for plain, equal in (
        (EqualLinear(300, 200, lr_mul=0.01, bias=0.5, equalized=False), EqualLinear(300, 200, lr_mul=0.01, bias=0.5)),
        (EqualConv2d(30, 40, 3, equalized=False), EqualConv2d(30, 40, 3)),
        (ModulatedConv2d(30, 40, 3, 8, equalized=False), ModulatedConv2d(30, 40, 3, 8)),
    ):
        assert effective_weight(plain).detach().equal(plain.weight.detach())
        spread = [float(effective_weight(layer).detach().std()) for layer in (plain, equal)]
        assert spread[0] == pytest.approx(spread[1], rel=0.03)
    plain = EqualLinear(3, 2, lr_mul=0.01, bias=0.5, equalized=False)
    torch.testing.assert_close(plain(torch.zeros(3)), torch.full((2,), 0.5))


@pytest.mark.parametrize("kind", ["spectral", "stable_rank", "orthogonal"])
def test_a_constraint_sets_the_scale_of_the_weight_by_itself(kind: str) -> None:
    for layer in (EqualLinear(12, 8), EqualConv2d(3, 4, 3), ModulatedConv2d(3, 4, 3, 5)):
        weights.apply(layer, kind, "!affine" if isinstance(layer, ModulatedConv2d) else "")
        layer.eval()
        matrix = effective_weight(layer).detach().flatten(1)
        assert float(torch.linalg.matrix_norm(matrix, 2)) == pytest.approx(1, rel=0.1)
    linear = weights.spectral_norm(EqualLinear(12, 8)).eval()
    x = torch.randn(3, 12)
    torch.testing.assert_close(linear(x), x @ linear.weight.T)


@given(sides, st.integers(1, 7), st.integers(1, 7), st.integers(0, 3), st.sampled_from([1, 2]))
@settings(max_examples=40, deadline=None)
def test_the_blur_is_the_explicit_convolution(c: int, h: int, w: int, padding: int, stride: int) -> None:
    assume(min(h, w) + 2 * padding >= 4)
    x = torch.randn(2, c, h, w, dtype=torch.float64)
    whole = np.array([[convolve2d(channel, FIR.numpy(), "full") for channel in image] for image in x.numpy()])
    full = functional.pad(torch.from_numpy(whole), [padding - 3] * 4)[:, :, ::stride, ::stride]
    torch.testing.assert_close(modulation.blur(x, padding, stride=stride), full)


def test_doubling_an_image_is_the_same_filter_on_stuffed_zeros() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    edged = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    stuffed = torch.zeros(2, 3, 14, 12, dtype=torch.float64)
    stuffed[:, :, ::2, ::2] = edged
    # pixel (1, 1) of the image lies at (2, 2); the filter is centred half a pixel before it
    want = functional.conv2d(stuffed.flatten(0, 1)[:, None], 4 * FIR[None, None])[:, 0, :10, :8].view(2, 3, 10, 8)
    torch.testing.assert_close(modulation.double(x), want)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_halving_convolution_is_a_blur_and_every_second_output(kernel: int) -> None:
    layer = EqualConv2d(3, 4, kernel, down=True).double()
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    weight = layer.weight / math.sqrt(3 * kernel**2)
    side = 1 + kernel // 2
    blurred = functional.conv2d(functional.pad(x, [side] * 4).flatten(0, 1)[:, None], FIR[None, None])
    blurred = blurred.view(2, 3, *blurred.shape[2:])
    want = functional.conv2d(blurred, weight, layer.bias)[:, :, ::2, ::2]
    assert want.shape == (2, 4, 4, 3)
    torch.testing.assert_close(layer(x), want)


def test_pixel_norm_and_activation_keep_the_mean_square() -> None:
    x = 30 * torch.randn(5, 64)
    torch.testing.assert_close(modulation.pixel_norm(x).square().mean(1), torch.ones(5))
    assert torch.isfinite(modulation.pixel_norm(torch.zeros(2, 3))).all()
    x = torch.randn(100_000)
    assert float(modulation.activate(x).square().mean()) == pytest.approx(1.04, abs=0.02)


def test_noise_is_standard_normal_and_independent_over_pixels_layers_and_seeds() -> None:
    seeds = torch.arange(40)
    maps = torch.stack([modulation.hash_noise(seeds, layer, 32)[:, 0] for layer in range(3)])  # layer, seed, h, w
    assert maps.dtype == torch.float32
    flat = maps.flatten()
    count = flat.numel()
    # moments of N(0, 1) within five standard errors
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float(flat.double().pow(power).mean()) - moment) < 5 * math.sqrt(spread / count)
    # as many below each tenth as there should be
    edges = torch.special.ndtri(torch.arange(1, 10) / 10.0)
    shares = (flat[:, None] < edges).double().mean(0)
    torch.testing.assert_close(shares, torch.arange(1, 10).double() / 10, atol=5 * 0.5 / math.sqrt(count), rtol=0)
    pairs = {
        "right": (maps[..., :-1], maps[..., 1:]),
        "below": (maps[..., :-1, :], maps[..., 1:, :]),
        "seed": (maps[:, :-1], maps[:, 1:]),
        "layer": (maps[:-1], maps[1:]),
    }
    for name, (a, b) in pairs.items():
        for f in (lambda t: t, lambda t: t.square() - 1):
            product = (f(a) * f(b)).double()
            assert abs(float(product.mean())) < 5 * float(product.std()) / math.sqrt(product.numel()), name


def test_noise_is_a_function_of_seed_layer_and_pixel_alone() -> None:
    both = modulation.hash_noise(torch.tensor([3, 8]), 2, 8)
    assert torch.equal(both[1:], modulation.hash_noise(torch.tensor([8]), 2, 8))
    assert not torch.equal(both[0], both[1])
    # frozen: saved nets and resumed runs count on them
    assert modulation.hash_noise(torch.tensor([7]), 0, 2).flatten().tolist() == pytest.approx(FROZEN, rel=1e-6)


def test_seeds_come_from_the_latent_alone() -> None:
    torch.manual_seed(0)
    z = torch.randn(1000, 6)
    seeds = modulation.latent_seeds(z)
    assert torch.equal(seeds[5:7], modulation.latent_seeds(z[5:7]))
    assert torch.equal(seeds, modulation.latent_seeds(z.double()))
    assert len(seeds.unique()) == 1000
    # a permutation of the same numbers, and a change in the last bit, are other latents
    assert not (modulation.latent_seeds(z.flip(1)) == seeds).any()
    assert not (modulation.latent_seeds(torch.nextafter(z, z + 1)) == seeds).any()
    assert int(seeds.min()) >= 0
    assert int(seeds.max()) < 2**32


def test_a_styled_convolution_adds_its_noise_by_its_strength() -> None:
    layer = StyledConv(3, 4, 5, layer=1).double()
    x, w = torch.randn(2, 3, 6, 6).double(), torch.randn(2, 5).double()
    seeds = torch.tensor([4, 9])
    plain = layer(x, w, seeds)
    assert torch.equal(plain, layer(x, w))
    with torch.no_grad():
        layer.noise_strength.fill_(0.3)
        layer.bias.normal_()
    style = layer.affine(w)
    h = modulation.modulated_conv2d(x, layer.weight / math.sqrt(27), style) + layer.bias[:, None, None]
    h = h + 0.3 * modulation.hash_noise(seeds, 1, 6).double()
    torch.testing.assert_close(layer(x, w, seeds), functional.leaky_relu(h, 0.2) * 2**0.5, rtol=1e-6, atol=1e-7)
    strength = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: functional_call(layer, {"noise_strength": s}, (x, w)), strength)


def test_a_frozen_strength_is_a_buffer_of_the_same_name() -> None:
    layer = StyledConv(3, 4, 5, layer=0)
    keys = set(layer.state_dict())
    layer.freeze_noise(0.25)
    assert set(layer.state_dict()) == keys
    assert "noise_strength" not in dict(layer.named_parameters())
    assert layer.requires_grad_(True).noise_strength.item() == 0.25
    assert not layer.noise_strength.requires_grad
    layer.freeze_noise()
    assert layer.noise_strength.item() == 0.25
    silent = StyledConv(3, 4, 5, layer=0, noise=False)
    silent.freeze_noise(1.0)
    assert silent.noise_strength is None


def test_groups_of_images_divide_the_batch_and_never_mix_its_halves() -> None:
    assert [modulation.group_size(n) for n in (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 64)] == [
        1,
        1,
        3,
        2,
        1,
        3,
        4,
        3,
        4,
        4,
        4,
    ]


def test_the_deviation_is_that_over_a_group_averaged() -> None:
    x = torch.randn(16, 3, 4, 4, dtype=torch.float64)
    out = modulation.with_deviation(x)
    assert torch.equal(out[:, :3], x)
    for start in range(0, 16, 4):
        group = x[start : start + 4].numpy()
        want = float((group.var(0) + 1e-8).__pow__(0.5).mean())
        assert out[start : start + 4, 3].flatten().tolist() == pytest.approx([want] * 64)
    alone = modulation.with_deviation(x[:1].requires_grad_(True))
    alone.sum().backward()
    assert torch.isfinite(alone).all()


def test_bfloat16_autocast_and_compiled_layers_give_nearly_the_same() -> None:
    torch.manual_seed(0)
    layer = StyledConv(3, 4, 5, layer=1, up=True)
    with torch.no_grad():
        layer.noise_strength.fill_(0.5)
    x, w, seeds = torch.randn(2, 3, 6, 6), torch.randn(2, 5), torch.tensor([1, 2])
    want = layer(x, w, seeds)
    compiled = torch.compile(copy.deepcopy(layer), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, w, seeds), want)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = layer(x, w, seeds)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), want, atol=0.05, rtol=0.05)
    down = EqualConv2d(3, 4, 3, down=True)
    spectral = weights.spectral_norm(copy.deepcopy(down)).eval()
    for net in (down, spectral):
        torch.testing.assert_close(torch.compile(net, backend="aot_eager", fullgraph=True)(x), net(x))


def test_a_constraint_on_an_equalised_layer_is_baked_in_exactly() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(EqualLinear(6, 5), EqualLinear(5, 4))
    weights.apply(net, "spectral")
    x = torch.randn(3, 6)
    expected = net.eval()(x)
    weights.remove(net)
    torch.testing.assert_close(net(x), expected)
    fresh = nn.Sequential(EqualLinear(6, 5), EqualLinear(5, 4))
    fresh.load_state_dict(net.state_dict())
    torch.testing.assert_close(fresh(x), expected)


def test_a_modulated_convolution_cannot_become_a_plain_skew_one() -> None:
    with pytest.raises(ValueError, match="has its own forward"):
        skew_orthogonal(ModulatedConv2d(4, 4, 3, 5))
