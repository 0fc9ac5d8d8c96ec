"""A resampled convolution is the convolution and the resampling one after the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from orthogan import weights
from orthogan.layers import resampled
from orthogan.layers.resampled import conv_pool, upsample_conv


def plain_up(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(functional.interpolate(x, scale_factor=2))


def plain_pool(layer: nn.Module, x: Tensor) -> Tensor:
    return functional.avg_pool2d(layer(x), 2)


PAIRS = {"upsample": (upsample_conv, plain_up), "pool": (conv_pool, plain_pool)}


@pytest.mark.parametrize("name", PAIRS)
@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
def test_it_is_the_two_steps_one_after_the_other_at_any_size(
    name: str, n: int, inputs: int, outputs: int, h: int, w: int, bias: bool, channels_last: bool
) -> None:
    fast, plain = PAIRS[name]
    torch.manual_seed(n + 10 * inputs + 100 * outputs)
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias).double()
    if channels_last:
        layer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.randn(n, inputs, 2 * h, 2 * w, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(fast(layer, x), plain(layer, x))
    weight = torch.randn_like(plain(layer, x))
    slopes = [torch.autograd.grad((f(layer, x) * weight).sum(), [x, *layer.parameters()]) for f in (fast, plain)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    ("layout", "pooled"),
    [(torch.contiguous_format, resampled.POOLED), (torch.channels_last, resampled.POOLED), (torch.channels_last, 0)],
)
def test_first_and_second_derivatives_are_right(
    name: str, layout: torch.memory_format, pooled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, plain = PAIRS[name]
    monkeypatch.setattr(resampled, "POOLED", pooled)
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3, padding=1).double()
    x = torch.randn(1, 2, 4, 2, dtype=torch.float64, requires_grad=True)
    expected = plain(layer, x)
    kernel = layer.weight.detach().to(memory_format=layout).requires_grad_()
    del layer.weight  # a plain attribute takes its place

    def of(x: Tensor, kernel: Tensor) -> Tensor:
        layer.weight = kernel  # pyright: ignore[reportAttributeAccessIssue]
        return fast(layer, x)

    torch.testing.assert_close(of(x, kernel), expected)
    assert torch.autograd.gradcheck(of, (x, kernel))
    assert torch.autograd.gradgradcheck(lambda x, kernel: of(x, kernel).square(), (x, kernel))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("kind", ["spectral", "stable_rank", "orthogonal"])
def test_it_takes_the_effective_weight_of_a_constrained_layer(name: str, kind: str) -> None:
    fast, plain = PAIRS[name]
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)).double()
    weights.apply(layer, kind)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with weights.hold_power_iteration(layer):
        torch.testing.assert_close(fast(layer[0], x), plain(layer[0], x))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(3, 4, 5, padding=2),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(3, 3, 3, padding=1, groups=3),
        nn.Conv2d(3, 4, 3, padding=2, dilation=2),
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()),
    ],
)
def test_any_other_layer_is_called_as_it_is(name: str, layer: nn.Module) -> None:
    fast, plain = PAIRS[name]
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(fast(layer, x), plain(layer, x))


@pytest.mark.parametrize("name", PAIRS)
def test_a_layer_that_was_replaced_keeps_its_own_forward(name: str) -> None:
    fast, plain = PAIRS[name]
    net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))
    weights.apply(net, "skew_orthogonal")
    net.eval()
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(fast(net[0], x), plain(net[0], x))


@pytest.mark.parametrize("name", PAIRS)
def test_a_hook_on_the_layer_is_called_with_what_the_layer_gives(name: str) -> None:
    fast, plain = PAIRS[name]
    layer, seen = nn.Conv2d(3, 4, 3, padding=1), []
    layer.register_forward_hook(lambda _, __, output: seen.append(output))
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(fast(layer, x), plain(layer, x))
    assert torch.equal(*seen)


class Halved(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight / 2, bias)


class Doubled(nn.Conv2d):
    def __call__(self, *args: Tensor) -> Tensor:
        return 2 * super().__call__(*args)


def wrapped() -> nn.Conv2d:
    """Return a layer whose forward was replaced on the instance, as Accelerate does."""
    layer = nn.Conv2d(3, 4, 3, padding=1)
    before = layer.forward
    layer.forward = lambda input: before(input) + 1  # pyright: ignore[reportAttributeAccessIssue]
    return layer


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("make", [lambda: Halved(3, 4, 3, padding=1), lambda: Doubled(3, 4, 3, padding=1), wrapped])
def test_a_layer_with_a_forward_pass_of_its_own_is_called(name: str, make: Callable[[], nn.Module]) -> None:
    fast, plain = PAIRS[name]
    layer, x = make(), torch.randn(2, 3, 6, 6)
    assert torch.equal(fast(layer, x), plain(layer, x))


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
def test_a_backward_hook_on_the_layer_is_called_with_its_gradients(name: str, kind: str) -> None:
    fast, plain = PAIRS[name]
    layer, seen = nn.Conv2d(3, 4, 3, padding=1), []
    getattr(layer, kind)(lambda _, *gradients: seen.append(gradients))
    x = torch.randn(2, 3, 6, 6, requires_grad=True)
    for function in (fast, plain):
        function(layer, x).square().sum().backward()
    assert len(seen) == 2
    torch.testing.assert_close(*seen)


def test_odd_sides_are_pooled_as_avg_pool2d_does() -> None:
    layer, x = nn.Conv2d(3, 4, 3, padding=1), torch.randn(2, 3, 7, 6)
    assert torch.equal(conv_pool(layer, x), plain_pool(layer, x))


@pytest.mark.parametrize("name", PAIRS)
def test_under_bfloat16_autocast_it_is_as_near_to_the_exact_value_as_the_two_steps_are(name: str) -> None:
    fast, plain = PAIRS[name]
    torch.manual_seed(0)
    layer, x = nn.Conv2d(32, 32, 3, padding=1), torch.randn(4, 32, 8, 8)
    exact = plain(layer.double(), x.double())
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        error, usual = ((f(layer, x).double() - exact).norm() for f in (fast, plain))
    assert error < 1.5 * usual


@pytest.mark.parametrize("name", PAIRS)
def test_it_compiles_whole(name: str) -> None:
    fast, plain = PAIRS[name]
    layer, x = nn.Conv2d(3, 4, 3, padding=1), torch.randn(2, 3, 6, 6)
    compiled = torch.compile(lambda x: fast(layer, x), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), plain(layer, x))
