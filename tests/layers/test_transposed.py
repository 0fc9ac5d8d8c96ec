"""A transposed convolution equals that of torch, and never asks oneDNN for the gradient of a bias."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from orthogan.layers.resampled import upsample_conv
from orthogan.layers.transposed import ConvTranspose2d, conv_transpose2d
from orthogan.models.protocol import GENERATORS

GEOMETRIES = [{"kernel_size": 4, "stride": 2, "padding": 1}, {"kernel_size": 3, "padding": 1}, {"kernel_size": 1}]
UNUSUAL = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "groups": 2, "dilation": 2}


def pair(geometry: dict[str, Any], bias: bool = True) -> tuple[nn.ConvTranspose2d, ConvTranspose2d]:
    torch.manual_seed(0)
    theirs = nn.ConvTranspose2d(4, 6, **geometry, bias=bias).double()
    ours = ConvTranspose2d(4, 6, **geometry, bias=bias).double()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("geometry", [*GEOMETRIES, UNUSUAL])
@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_result_and_gradients_are_those_of_torch(geometry: dict[str, Any], n: int, h: int, w: int, bias: bool) -> None:
    theirs, ours = pair(geometry, bias)
    x = torch.randn(n, 4, h, w, dtype=torch.float64, requires_grad=True)
    assert torch.equal(ours(x), theirs(x))
    weight = torch.randn_like(theirs(x))
    slopes = [torch.autograd.grad((f(x) * weight).sum(), [x, *f.parameters()]) for f in (ours, theirs)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("geometry", [*GEOMETRIES, UNUSUAL])
def test_first_and_second_derivatives_are_right(geometry: dict[str, Any]) -> None:
    _, ours = pair(geometry)
    x = torch.randn(1, 4, 2, 3, dtype=torch.float64, requires_grad=True)

    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return conv_transpose2d(x, weight, bias, ours.stride, ours.padding, ours.output_padding, ours.groups).square()

    if ours.dilation == (1, 1):
        assert torch.autograd.gradcheck(call, (x, *ours.parameters()))
        assert torch.autograd.gradgradcheck(call, (x, *ours.parameters()))


def test_forward_mode_and_vmap_are_those_of_torch() -> None:
    theirs, ours = pair(GEOMETRIES[0])
    x, v = torch.randn(2, 2, 4, 3, 3, dtype=torch.float64).unbind()

    def slope(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
        parameters = dict(net.named_parameters())
        return torch.func.grad(lambda p: torch.func.functional_call(net, p, (x,)).square().sum())(parameters)

    torch.testing.assert_close(torch.func.jvp(ours, (x,), (v,)), torch.func.jvp(theirs, (x,), (v,)))
    many = torch.stack([x, v])
    torch.testing.assert_close(torch.vmap(slope, (None, 0))(ours, many), torch.vmap(slope, (None, 0))(theirs, many))


def test_output_size_missing_batch_and_copies_work_as_in_torch() -> None:
    theirs, ours = pair({"kernel_size": 3, "stride": 2, "padding": 1})
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    assert torch.equal(ours(x, output_size=[6, 6]), theirs(x, output_size=[6, 6]))
    assert torch.equal(ours(x[0]), theirs(x[0]))
    ours(x[0]).sum().backward()
    theirs(x[0]).sum().backward()
    assert ours.bias is not None
    assert theirs.bias is not None
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)
    assert torch.equal(copy.deepcopy(ours)(x), ours(x))


def test_two_forward_passes_before_a_backward_pass() -> None:
    theirs, ours = pair(GEOMETRIES[0])
    x, y = torch.randn(2, 2, 4, 3, 3, dtype=torch.float64).unbind()
    slopes = [torch.autograd.grad((f(x).sin() + f(y).cos()).sum(), list(f.parameters())) for f in (ours, theirs)]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_is_within_its_rounding(dtype: torch.dtype) -> None:
    _, exact = pair(GEOMETRIES[0])
    rounded = copy.deepcopy(exact).to(dtype)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    for layer in (exact, rounded):
        layer(x.to(layer.weight.dtype)).square().mean().backward()
    assert exact.bias is not None
    assert rounded.bias is not None
    assert rounded.bias.grad is not None
    assert rounded.bias.grad.dtype == dtype
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(rounded.bias.grad.double(), exact.bias.grad, rtol=tolerance, atol=tolerance)


def test_a_compiled_layer_is_one_graph() -> None:
    _, ours = pair(GEOMETRIES[0])
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    graph = torch.compile(ours, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(graph(x), ours(x))


class Asked(TorchDispatchMode):
    """Counts the transposed convolutions whose backward pass computes the gradient of the bias itself."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = self.all = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._overloadpacket is torch.ops.aten.convolution_backward and args[7]:
            self.all += 1
            self.slow += args[10][2]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["dcgan", "infogan", "simple-gan", "eigengan", "sngan"])
def test_no_generator_uses_the_slow_gradient(kind: str) -> None:
    options = {"latent_dim": 8} | ({"dims": 1} if kind == "eigengan" else {})
    net = GENERATORS.get(kind)(resolution=32, image_channels=1, channels=16, **options)
    with Asked() as asked:
        net(torch.randn(2, net.latent_dim)).square().mean().backward()
    assert asked.all
    assert not asked.slow


def test_a_folded_convolution_uses_the_fast_gradient_too() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1)
    with Asked() as asked:
        upsample_conv(layer, torch.randn(2, 3, 4, 4)).square().mean().backward()
    assert (asked.all, asked.slow) == (1, 0)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_result_may_be_changed_in_place(frozen: bool) -> None:
    theirs, ours = pair(GEOMETRIES[0])
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=not frozen)
    slopes = []
    for layer in (theirs, ours):
        layer.weight.requires_grad_(not frozen)
        y = functional.leaky_relu(layer(x).mul_(3), 0.2, inplace=True)
        slopes.append(torch.autograd.grad(y.square().sum(), [p for p in layer.parameters() if p.requires_grad]))
    torch.testing.assert_close(*slopes)


def test_the_result_of_a_folded_convolution_may_be_changed_in_place() -> None:
    layer = nn.Conv2d(4, 6, 3, padding=1).double()
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    plain = layer(functional.interpolate(x, scale_factor=2)).relu()
    slopes = [torch.autograd.grad(y.sum(), [*layer.parameters()]) for y in (upsample_conv(layer, x).relu_(), plain)]
    torch.testing.assert_close(*slopes)


def test_a_traced_layer_with_gradients_is_the_layer() -> None:
    theirs, ours = pair(GEOMETRIES[0])
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    traced: Any = torch.jit.trace(ours, x)  # its own check compares two traces
    assert torch.equal(traced(x), theirs(x))
    slopes = [torch.autograd.grad(f(x).sin().sum(), list(f.parameters())) for f in (traced, theirs)]
    torch.testing.assert_close(*slopes)
