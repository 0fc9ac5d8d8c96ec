"""Projectors over a whole net, in place of a transposed convolution too, and taken off again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from orthogan import weights
from orthogan.layers import HouseholderPixel, HouseholderProjector
from orthogan.models.families.modulation import EqualLinear


def transposed(**options: int) -> nn.ConvTranspose2d:
    torch.manual_seed(0)
    return nn.ConvTranspose2d(5, 3, 4, **options).double()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.ConvTranspose2d(5, 3, 4)
        self.conv = nn.Conv2d(3, 3, 3)
        self.linear = nn.Linear(12, 6)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(self.conv(self.first(z[:, :, None, None])).flatten(1))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_pixel_projector_is_the_truncated_svd_of_the_kernels(stride: int) -> None:
    conv = transposed(stride=stride)
    layer = HouseholderPixel.from_transposed(conv, 2, scale=0.5)
    u, _, vt = torch.linalg.svd(conv.weight.detach().flatten(1).T)
    expected = copy.deepcopy(conv)
    with torch.no_grad():
        expected.weight.copy_((0.5 * u[:, :2] @ vt[:2]).T.view_as(conv.weight))
    z = torch.randn(4, 5, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(layer(z), expected(z))
    torch.testing.assert_close(layer.weight, 0.5 * u[:, :2] @ vt[:2])
    overlap = torch.linalg.svdvals(layer.directions().detach() @ vt[:2].T)
    torch.testing.assert_close(overlap, torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(layer.baked()(z), expected(z))
    assert torch.autograd.gradcheck(layer, (z.requires_grad_(True),))


def test_a_pixel_projector_of_full_rank_and_all_sizes_keeps_its_bias_a_channel() -> None:
    layer = HouseholderPixel(5, (3, 2, 4), 4)
    nn.init.normal_(layer.bias)
    z = torch.randn(2, 5, 1, 1)
    assert layer.bias is not None
    expected = (z.flatten(1) @ layer.weight.T).view(2, 3, 2, 4) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(z), expected)
    half = layer(z.bfloat16())
    assert half.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"takes \(n, 5, 1, 1\)"):
        layer(torch.zeros(2, 5, 2, 2))


def test_the_scale_is_that_of_the_singular_values_it_replaces_if_none_is_given() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 8).double()
    values = torch.linalg.svdvals(linear.weight.detach())
    layer = HouseholderProjector.from_linear(linear, 3, scale=None)
    size = values[:3].square().mean().sqrt()
    expected = torch.cat([size.expand(3), torch.zeros(3).double()])
    torch.testing.assert_close(torch.linalg.svdvals(layer.weight.detach()), expected)
    nn.init.zeros_(linear.weight)
    with pytest.raises(ValueError, match=r"scale is 0\.0"):
        HouseholderProjector.from_linear(linear, 3, scale=None)


def test_an_equalised_layer_counts_as_it_applies_its_weight() -> None:
    torch.manual_seed(0)
    linear = EqualLinear(6, 6, bias=0.5, lr_mul=0.01)
    layer = HouseholderProjector.from_linear(linear, 6, scale=None)
    assert float(layer.scale[0]) == pytest.approx(float((linear.weight * linear.gain).detach().norm()) / 6**0.5)
    assert layer.bias is not None
    torch.testing.assert_close(layer.bias.detach(), torch.full((6,), 0.5))


def test_it_goes_where_it_is_told_and_remove_bakes_it() -> None:
    net = Net()
    assert weights.apply(net, "householder", rank=2) == ["first"]
    assert isinstance(net.first, HouseholderPixel)
    assert weights.apply(net, "householder", ["linear"], rank=3, scale=None) == ["linear"]
    weights.spectral_norm(net.conv)
    net.eval()
    z = torch.randn(3, 5)
    before = net(z)
    assert weights.remove(net) is net
    assert [type(part) for part in (net.first, net.conv, net.linear)] == [nn.ConvTranspose2d, nn.Conv2d, nn.Linear]
    assert not net.first.training
    torch.testing.assert_close(net(z), before)
    assert "conv.parametrizations.weight.original" not in net.state_dict()
    with pytest.raises(ValueError, match="no constrained weight"):
        weights.remove(net)


def test_its_state_builds_the_same_function() -> None:
    one, two = Net(), Net()
    for net in (one, two):
        weights.apply(net, "householder", rank=2, scale=None)
    with torch.no_grad():
        one.first.left.normal_()
        one.first.scale.fill_(3.0)
    z = torch.randn(3, 5)
    assert not torch.allclose(one(z), two(z))
    two.load_state_dict(one.state_dict())
    assert torch.equal(one(z), two(z))


@pytest.mark.parametrize(
    ("layers", "rank", "message"),
    [
        ("conv", 2, r"^conv: Conv2d: only an nn\.Linear"),
        ("linear", 7, r"^linear: rank is 7: a 6 x 12 weight has 1 to 6"),
        ("lienar", 2, "did you mean"),
    ],
)
def test_what_cannot_be_one_is_named_and_nothing_is_replaced(layers: str, rank: int, message: str) -> None:
    net = Net()
    with pytest.raises(ValueError, match=message):
        weights.apply(net, "householder", layers, rank=rank)
    assert isinstance(net.linear, nn.Linear)
    for options in ({"padding": 1}, {"dilation": 2}):
        with pytest.raises(ValueError, match="not a matrix applied to one pixel"):
            HouseholderPixel.from_transposed(transposed(**options), 2)
    with pytest.raises(ValueError, match=r"only an nn\.ConvTranspose2d"):
        HouseholderPixel.from_transposed(nn.Linear(3, 3), 2)
